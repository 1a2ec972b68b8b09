"""Files and arrays are predicted like nnU-Net predicts them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy import ndimage

from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import LABEL_KINDS
from semi_nnunet.deploy.mirrors import MirrorChoice
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.inference.earlier import is_same_description
from semi_nnunet.inference.folder import FolderPredictor
from semi_nnunet.inference.model import ImagePredictor, PredictionOptions
from semi_nnunet.inference.predict import load_predictor, predict_images
from semi_nnunet.raw.description import find_cases
from semi_nnunet.raw.layout import EARLIER_RECORD, PREDICTED_FROM
from semi_nnunet.util.errors import DiskError, UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.memory import GIB, at_most, data_bytes
from tests.pseudo_labels.conftest import save_trained_model
from tests.pseudo_labels.labelling import predict_with_nnunet, read


@pytest.mark.parametrize("mirror", [False, True])
def test_files_and_arrays_are_predicted_as_nnunet_predicts_them(pool, tmp_path, mirror):
    for path in sorted(pool.images.iterdir())[2:]:
        path.unlink()
    (model, *_), out = pool.models, tmp_path / "out"
    files = predict_images(
        model.folder, pool.images, out, speed="exact", mirror=mirror, device="cpu"
    )
    predict_with_nnunet(model, pool.images, tmp_path / "nnunet", mirror)
    images = [sitk.ReadImage(str(path)) for path in sorted(pool.images.iterdir())]
    arrays = [sitk.GetArrayFromImage(image)[None] for image in images]
    spacings = [image.GetSpacing()[::-1] for image in images]
    labels = predict_images(
        model.folder, arrays, spacings=spacings, speed="exact", mirror=mirror, device="cpu"
    )
    assert [path.name for path in files] == sorted(p.name for p in out.glob("*.nii.gz"))
    for path, image, array in zip(files, images, labels, strict=True):
        assert np.array_equal(read(path), read(tmp_path / "nnunet" / path.name))
        assert np.array_equal(read(path), array)
        written = sitk.ReadImage(str(path))
        assert written.GetSpacing() == image.GetSpacing()
        assert written.GetOrigin() == image.GetOrigin()
    assert read_json(out / "dataset.json") == model.dataset_json  # names the labels


def test_predictions_of_a_model_trained_on_more_cases_replace_the_old_ones():
    description = {"labels": {"background": 0, "organ": 1}, "numTraining": 12}
    assert is_same_description(description, {**description, "numTraining": 20})
    assert not is_same_description(
        description, {**description, "labels": {"background": 0, "other": 1}}
    )


def test_the_only_fold_of_a_model_predicts_as_the_model(pool, tmp_path):
    image = min(pool.images.iterdir())
    for path in pool.images.iterdir():
        if path != image:
            path.unlink()
    folder = pool.models[0].folder
    (whole,) = predict_images(str(folder), str(pool.images), str(tmp_path / "whole"), device="cpu")
    (fold,) = predict_images(folder / "fold_0", pool.images, tmp_path / "fold", device="cpu")
    assert np.array_equal(read(whole), read(fold))


def test_complete_predictions_are_kept_on_request(pool, tmp_path):
    options = {"device": "cpu", "mirror": False}
    files = predict_images(pool.models[0].folder, pool.images, tmp_path / "out", **options)
    kept, broken = files[:2]
    times = {path: path.stat().st_mtime_ns for path in files}
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    again = predict_images(
        pool.models[0].folder, pool.images, tmp_path / "out", resume=True, **options
    )
    assert sorted(again) == sorted(files) and kept.stat().st_mtime_ns == times[kept]
    assert broken.read_bytes() == whole
    predict_images(pool.models[0].folder, pool.images, tmp_path / "out", **options)
    assert kept.stat().st_mtime_ns > times[kept]


@pytest.fixture
def striped(monkeypatch):
    """Some rows of a prediction are background, so that there are components of several sizes."""
    labels_only, with_probabilities = ImagePredictor.__call__, ImagePredictor.predict_probabilities

    def cut(labels):
        labels[..., (9, 11, 20), :] = 0
        return labels

    monkeypatch.setattr(ImagePredictor, "__call__", lambda *args: cut(labels_only(*args)))

    def predict_probabilities(*args):
        labels, probabilities = with_probabilities(*args)
        return cut(labels), probabilities

    monkeypatch.setattr(ImagePredictor, "predict_probabilities", predict_probabilities)


def keep_largest_by_hand(labels: np.ndarray) -> np.ndarray:
    components, count = ndimage.label(labels > 0, np.ones((3,) * labels.ndim))
    assert count > 1
    return np.where(components == 1 + np.bincount(components.ravel())[1:].argmax(), labels, 0)


@pytest.mark.parametrize("uncertainty", [False, True])
def test_only_the_largest_component_is_kept_on_request(pool, tmp_path, striped, uncertainty):
    options = {"device": "cpu", "mirror": False, "uncertainty": uncertainty}
    model, out = pool.models[0].folder, tmp_path / "out"
    plain = predict_images(model, pool.images, tmp_path / "plain", **options)
    kept = predict_images(model, pool.images, out, largest_component=True, **options)
    for before, after in zip(map(read, plain), map(read, kept), strict=True):
        assert np.array_equal(after, keep_largest_by_hand(before))
    predict_images(model, pool.images, out, resume=True, **options)  # other options: predicts again
    assert all(
        np.array_equal(*pair) for pair in zip(map(read, plain), map(read, kept), strict=True)
    )


def test_only_the_largest_component_of_arrays_is_kept_on_request(pool, striped):
    model, path = pool.models[0].folder, min(pool.images.iterdir())
    array = sitk.GetArrayFromImage(sitk.ReadImage(path))[None]
    options = {"spacings": [(1, 1, 1)], "device": "cpu", "mirror": False}
    (plain,) = predict_images(model, [array], **options)
    (kept,) = predict_images(model, [array], largest_component=True, **options)
    assert np.array_equal(kept, keep_largest_by_hand(plain))


def test_a_model_of_data_in_one_piece_keeps_the_largest_component(pool, tmp_path, striped):
    options = {"device": "cpu", "mirror": False}
    model = pool.models[0].folder
    plain = [read(path) for path in predict_images(model, pool.images, tmp_path / "0", **options)]
    write_json(path := model / "dataset.json", {**read_json(path), "one_piece": True})
    kept = [read(path) for path in predict_images(model, pool.images, tmp_path / "1", **options)]
    assert all(map(np.array_equal, kept, map(keep_largest_by_hand, plain)))
    options["largest_component"] = False
    whole = predict_images(model, pool.images, tmp_path / "2", **options)
    assert all(map(np.array_equal, map(read, whole), plain))
    exact = predict_images(model, pool.images, tmp_path / "3", device="cpu", speed="exact")
    assert all(ndimage.label(read(path) > 0)[1] > 1 for path in exact)


def test_a_rule_that_the_raw_data_set_changed_is_named(pool, tmp_path, striped, raw, caplog):
    model, options = pool.models[0].folder, {"device": "cpu", "mirror": False}
    for value, is_named in ((False, False), (True, True)):
        write_json(path := raw / "dataset.json", {**read_json(path), "one_piece": value})
        caplog.clear()
        predict_images(model, pool.images, tmp_path / f"{value}", **options)
        assert ("--largest-component" in caplog.text) == is_named
    caplog.clear()
    predict_images(model, pool.images, tmp_path / "on", largest_component=True, **options)
    assert "--largest-component" not in caplog.text


def test_the_first_stage_is_predicted_before_the_second(cascade, tmp_path):
    second, first = cascade.models
    for path in sorted(cascade.images.iterdir())[1:]:
        path.unlink()
    predict_with_nnunet(first, cascade.images, tmp_path / "first", False)
    predict_with_nnunet(
        second, cascade.images, tmp_path / "second", False, previous=tmp_path / "first"
    )
    out = tmp_path / "out"
    (file,) = predict_images(
        second.folder, cascade.images, out, speed="exact", mirror=False, device="cpu"
    )
    assert np.array_equal(read(file), read(tmp_path / "second" / file.name))
    shutil.rmtree(first.folder)
    with pytest.raises(UserError, match="3d_lowres"):
        predict_images(second.folder, cascade.images, out, device="cpu")


def test_missing_arguments_and_files_are_reported(pool, tmp_path):
    model, array = pool.models[0].folder, np.zeros((1, 4, 32, 32), np.float32)
    (tmp_path / "empty").mkdir()
    for words, options, keyword in (
        ((model, [array]), {}, "spacings .* got none"),
        ((model, [array] * 2), {"spacings": [(1, 1, 1)]}, "2 arrays, got 1"),
        ((model, pool.images), {}, "out=FOLDER"),
        ((model, pool.images, tmp_path / "out"), {"spacings": [(1, 1, 1)]}, "arrays"),
        ((model, [array], tmp_path / "out"), {"spacings": [(1, 1, 1)]}, "returned"),
        ((model, [array, array[0]]), {"spacings": [(1, 1, 1)] * 2}, r"images\[1\].*\(4, 32, 32\)"),
        ((model, [array]), {"spacings": [(1, 1)]}, r"spacings\[0\].*\(1, 1\)"),
        ((model, tmp_path / "empty", tmp_path / "out"), {}, r"no image CASE_0000\.nii\.gz"),
        ((tmp_path, pool.images, tmp_path / "out"), {}, "no trained model"),
    ):
        with pytest.raises(UserError, match=keyword):
            predict_images(*words, device="cpu", **options)
    assert not (tmp_path / "out").exists()


def test_all_mistakes_are_reported_together(pool, tmp_path, capsys):
    words = ["predict", "-i", str(tmp_path / "nowhere"), "-o", str(tmp_path / "file")]
    (tmp_path / "file").touch()
    mistakes = ["--step-size", "7", "--coarse", "nothing", "-device", "cpu"]
    assert main([*words, "-m", str(pool.models[0].folder), *mistakes]) == 2
    errors = capsys.readouterr().err
    for message in ("got 7.0", "nothing", "is no folder of images", "must be a folder, got"):
        assert message in errors
    assert main([*words, "-m", "no_model", *mistakes]) == 2
    errors = capsys.readouterr().err
    assert "got 7.0" in errors and errors.count("no trained model") == 1


def test_only_predictions_are_overwritten(pool, tmp_path):
    model, images = pool.models[0].folder, pool.images
    for path in sorted(images.iterdir())[1:]:
        path.unlink()
    (image,) = images.iterdir()
    labels, data_set, below = tmp_path / "labelsTs", tmp_path / "data", tmp_path / "file" / "out"
    for folder in (labels, data_set):
        folder.mkdir()
    label = labels / image.name.replace("_0000", "")
    label.write_bytes(b"what people drew")
    (data_set / "dataset.json").write_text('{"labels": {"background": 0, "other": 1}}')
    below.parent.touch()
    for out, keyword in (
        (images, "must be another folder than that of the images"),
        (labels, f"holds {label.name}, which is not a prediction"),
        (data_set, "got another dataset.json"),
        (below, "must be a folder, got the file"),
    ):
        with pytest.raises(UserError, match=keyword):
            predict_images(model, images, out, device="cpu")
    assert [*images.iterdir()] == [image] and label.read_bytes() == b"what people drew"
    assert "other" in (data_set / "dataset.json").read_text()
    (first,) = predict_images(model, images, tmp_path / "out", device="cpu")
    first.write_bytes(b"half")
    (again,) = predict_images(
        model, images, tmp_path / "out", device="cpu"
    )  # predictions are replaced
    assert again == first and read(again).ndim


def test_predictions_of_two_models_are_not_mixed(pool, tmp_path):
    for path in sorted(pool.images.iterdir())[1:]:
        path.unlink()
    first, second = (model.folder for model in pool.models[:2])
    out = tmp_path / "out"
    (file,) = predict_images(first, pool.images, out, device="cpu")
    content = file.read_bytes()
    for model, options in ((second, {}), (first, {"coarse": second})):
        with pytest.raises(UserError, match=f"got those of .*{first.name} with other weights"):
            predict_images(model, pool.images, out, device="cpu", **options)
    assert file.read_bytes() == content
    moved = Path(shutil.copytree(first, tmp_path / "Dataset950_Moved" / first.name))
    assert predict_images(moved, pool.images, out, device="cpu") == [file]
    (out / PREDICTED_FROM).unlink()  # nnU-Net's own
    assert predict_images(first, pool.images, out, device="cpu") == [file]
    (out / PREDICTED_FROM).unlink()
    shutil.copy(file, out / "older.nii.gz")
    with pytest.raises(UserError, match=r"older.nii.gz .*unknown model"):
        predict_images(first, pool.images, out, device="cpu")


def test_changed_images_are_predicted_again(pool, tmp_path):
    for path in sorted(pool.images.iterdir())[2:]:
        path.unlink()
    model, out = pool.models[0].folder, tmp_path / "out"
    options = {"device": "cpu", "mirror": False}
    kept, other = predict_images(model, pool.images, out, **options)
    times, (image, second) = kept.stat().st_mtime_ns, sorted(pool.images.iterdir())
    shutil.copy(image, second)
    predict_images(model, pool.images, out, resume=True, **options)
    assert kept.stat().st_mtime_ns == times and np.array_equal(read(other), read(kept))
    predict_images(model, pool.images, out, resume=True, device="cpu", mirror=True)
    assert kept.stat().st_mtime_ns > times  # predicted in another way


def test_chosen_axes_are_not_mixed_with_others(pool, tmp_path):
    for path in sorted(pool.images.iterdir())[1:]:
        path.unlink()
    model = pool.models[0]
    (file,) = predict_images(model.folder, pool.images, tmp_path / "out", device="cpu")
    mirrored = read(file)
    MirrorChoice((), (), ("0",), 1, 0.001, model.checksums()).write(model.folder)
    predict_images(model.folder, pool.images, tmp_path / "out", device="cpu", resume=True)
    assert not np.array_equal(read(file), mirrored)


def test_labels_that_were_corrected_are_never_predicted_over(pool, tmp_path):
    for path in sorted(pool.images.iterdir())[2:]:
        path.unlink()
    model, out = pool.models[0].folder, tmp_path / "out"
    first, second = predict_images(model, pool.images, out, device="cpu")
    label = sitk.ReadImage(str(first))
    label[0, 0, 0] = 1 - min(1, label[0, 0, 0])
    sitk.WriteImage(label, str(first))
    edited, other = first.read_bytes(), read(second)
    with pytest.raises(UserError, match="keep it: --c") as refused:
        predict_images(model, pool.images, out, device="cpu")
    assert [problem.where for problem in refused.value.problems] == [str(first)]
    for options in ({"mirror": False}, {"uncertainty": True}):
        predict_images(model, pool.images, out, device="cpu", resume=True, **options)
        assert first.read_bytes() == edited
    first.unlink()
    again, _ = sorted(predict_images(model, pool.images, out, device="cpu"))
    assert again.read_bytes() != edited and np.array_equal(read(second), other)


def test_predictions_of_an_earlier_version_are_kept_and_not_mixed(pool, tmp_path):
    for path in sorted(pool.images.iterdir())[1:]:
        path.unlink()
    out, (first, second, *_) = tmp_path / "out", pool.models
    (file,) = predict_images(first.folder, pool.images, out, device="cpu")
    (out / PREDICTED_FROM).unlink()
    write_json(out / EARLIER_RECORD, {"predicted_by": first.record()})
    times = file.stat().st_mtime_ns
    with pytest.raises(UserError, match=f"got those of .*{first.name} with other weights"):
        predict_images(second.folder, pool.images, out, device="cpu")
    predict_images(first.folder, pool.images, out, device="cpu", resume=True)
    assert file.stat().st_mtime_ns == times and not (out / EARLIER_RECORD).exists()


def test_no_incomplete_prediction_remains(pool, tmp_path, monkeypatch):
    (model, *_), write = pool.models, SimpleITKIO.write_seg

    def half(self, labels, path, properties):
        write(self, labels, path, properties)
        if "phantom_0006" in path:
            Path(path).write_bytes(Path(path).read_bytes()[:-20])  # SimpleITK does not report it

    monkeypatch.setattr(SimpleITKIO, "write_seg", half)
    with pytest.raises(DiskError, match=r"phantom_0006.nii.gz"):
        predict_images(model.folder, pool.images, tmp_path / "out", device="cpu")
    assert [path.name for path in (tmp_path / "out").glob("*.gz")] == ["phantom_0005.nii.gz"]


def test_a_broken_image_is_reported_and_the_others_are_predicted(pool, tmp_path):
    first, second, *_ = sorted(pool.images.iterdir())
    first.write_bytes(b"")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(second)))
    array[:] = np.nan
    broken = sitk.GetImageFromArray(array.astype(np.float32))
    sitk.WriteImage(broken, str(second))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"2 of \d images") as error:
        predict_images(pool.models[0].folder, pool.images, out, device="cpu")
    assert first.name in str(error.value) and second.name in str(error.value)
    predicted = {path.name for path in out.glob("*.nii.gz")}
    all_names = {path.name.replace("_0000", "") for path in pool.images.iterdir()}
    assert predicted == all_names - {path.name.replace("_0000", "") for path in (first, second)}


def test_an_image_that_the_network_rejects_is_reported(pool, tmp_path, monkeypatch):
    first = min(pool.images.iterdir())
    call = ImagePredictor.__call__

    def fails(self, image, properties):
        if first.name.replace("_0000", "") not in {p.name for p in (tmp_path / "out").glob("*")}:
            monkeypatch.setattr(ImagePredictor, "__call__", call)
            raise FloatingPointError("the network's output is infinite or not a number")
        return call(self, image, properties)

    monkeypatch.setattr(ImagePredictor, "__call__", fails)
    with pytest.raises(UserError, match=r"(?s)1 of .*infinite"):
        predict_images(pool.models[0].folder, pool.images, tmp_path / "out", device="cpu")


def test_the_command_predicts_nnunets_labels(pool, tmp_path, capsys):
    for path in sorted(pool.images.iterdir())[1:]:
        path.unlink()
    model, out = pool.models[0], tmp_path / "out"
    words = ["predict", "-m", str(model.folder), "-i", str(pool.images), "-device", "cpu"]
    (pool.images / "misnamed.nii.gz").touch()
    assert main([*words, "-o", str(out), "--exact"]) == 0
    captured = capsys.readouterr()
    assert f"predicted 1 image: {out}" in captured.out
    assert "left out: misnamed.nii.gz" in captured.err
    (pool.images / "misnamed.nii.gz").unlink()
    predict_with_nnunet(model, pool.images, tmp_path / "nnunet", True)
    (file,) = out.glob("*.nii.gz")
    assert np.array_equal(read(file), read(tmp_path / "nnunet" / file.name))
    coarse = ["--fast", "--step-size", "0.8", "--coarse", str(pool.models[1].folder)]
    assert main([*words, "-o", str(tmp_path / "fast"), *coarse]) == 0
    assert main([*words, "-o", str(out), "--step-size", "2"]) == 2
    assert "got 2.0" in capsys.readouterr().err


def predict_channels_with_nnunet(folder: Path, images: Path, out: Path, channels: int) -> None:
    """nnUNetv2_predict on one thread, in this process."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), ("0",))
    reader = predictor.plans_manager.image_reader_writer_class()
    out.mkdir()
    names = sorted({path.name.rsplit("_", 1)[0] for path in images.glob("*.nii.gz")})
    for name in names:
        files = [str(images / f"{name}_{channel:04d}.nii.gz") for channel in range(channels)]
        image, properties = reader.read_images(files)
        predictor.predict_single_npy_array(image, properties, None, str(out / name), False)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(
    ("kind", "channels"), [(kind, 1) for kind in LABEL_KINDS] + [("labels", 2)]
)
def test_labels_equal_nnunets(
    make_trainer, prepared_dataset, tmp_path, monkeypatch, kind, channels, configuration
):
    monkeypatch.setenv("nnUNet_extTrainer", trainer_folders())
    dataset = prepared_dataset(kind, channels)
    trainer = make_trainer("SemiBaselineTrainer", configuration, dataset=dataset, start=False)
    trainer.initialize()
    name = f"SemiBaselineTrainer__nnUNetPlans__{configuration}"
    model = save_trained_model(trainer, tmp_path / dataset.raw.name / name, seed=3)
    plans = read_json(model.folder / "plans.json")  # another grid than the images'
    settings = plans["configurations"][configuration]
    settings["spacing"] = [
        size * factor for size, factor in zip(settings["spacing"], (1.2, 0.9, 1.3), strict=False)
    ]
    plans["transpose_forward"], plans["transpose_backward"] = [2, 0, 1], [1, 2, 0]
    write_json(model.folder / "plans.json", plans)
    images = tmp_path / "images"
    shutil.copytree(dataset.raw / "imagesTs", images)
    for path in images.glob("*.nii.gz"):  # a border that nnU-Net crops
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        array[:2], array[..., -3:] = 0, 0
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 1.1, 2.0))
        sitk.WriteImage(image, str(path))
    predict_channels_with_nnunet(model.folder, images, tmp_path / "nnunet", channels)
    files = predict_images(model.folder, images, tmp_path / "ours", speed="exact", device="cpu")
    assert files
    for file in files:
        expected = read(tmp_path / "nnunet" / file.name)
        assert len(np.unique(expected)) > 1
        assert np.array_equal(read(file), expected)


@pytest.mark.skipif(data_bytes() is None, reason="the system does not count memory")
@pytest.mark.parametrize("room", [0.4, 0.9], ids=["is not read", "is not predicted"])
def test_an_image_above_the_memory_limit_is_reported_and_the_others_are_predicted(
    room, pool, tmp_path
):
    first, *small_files = sorted(pool.images.iterdir())
    small = sitk.ReadImage(str(first))
    voxels = np.arange(80_000_000, dtype=np.float32).reshape(80, 1000, 1000)
    large = sitk.GetImageFromArray(voxels)
    large.SetSpacing(small.GetSpacing())
    sitk.WriteImage(large, str(pool.images / "large_0000.nii.gz"), compressionLevel=1)
    del large, voxels
    limit = (data_bytes() or 0) / GIB + room
    with pytest.raises(UserError, match=r"1 of \d images") as error:
        predict_images(pool.models[0].folder, pool.images, tmp_path, device="cpu", max_memory=limit)
    assert re.search(rf"large.*: .*--max-memory {limit:g} \(GiB\).*raise it", str(error.value))
    written = {path.name for path in tmp_path.glob("phantom*.nii.gz")}
    assert written == {path.name.replace("_0000", "") for path in (first, *small_files)}


def test_smaller_tiles_are_tried_if_the_memory_limit_is_too_small(pool, tmp_path, capsys):
    """The network asks for more than there is, until its tiles are small."""
    model = load_predictor(pool.models[:1], PredictionOptions(), torch.device("cpu"))
    forward = model.network.forward

    def hungry(x: torch.Tensor) -> torch.Tensor:
        torch.empty(x.shape[-1] * 2**29 // 24, dtype=torch.uint8)  # 512 MiB for 24 voxels
        return forward(x)

    model.network.forward = hungry
    with at_most((data_bytes() or 0) / GIB + 0.4):
        cases = find_cases(pool.images, ".nii.gz")
        files = FolderPredictor(model, pool.images, tmp_path, 1.0).predict(cases)
    assert len(files) == len(cases)
    assert "too small" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "key_word"),
    [
        (5, "int"),
        (np.zeros((1, 6, 32, 32)), "ndarray"),
        ([np.full((1, 6, 32, 32), np.nan)], "NaN"),
        ([np.full((1, 6, 32, 32), "a")], "numbers"),
        ([np.zeros((6, 32, 32))], "axes"),
    ],
)
def test_arrays_that_are_no_images_are_refused(pool, images, key_word):
    with pytest.raises(UserError, match=key_word):
        predict_images(pool.models[0].folder, images, spacings=[(1, 1, 1)], device="cpu")
