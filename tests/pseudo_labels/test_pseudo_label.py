"""Pools are labelled as nnU-Net would, once, and whole, whatever is killed or broken."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from semi_nnunet.cli.main import main
from semi_nnunet.deploy.trained import find_model, find_models
from semi_nnunet.pseudo_labels.pool import PoolShard, Request, run_shard
from semi_nnunet.pseudo_labels.predictor import Labeller
from semi_nnunet.runs.slurm import batch_script
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, sha256_of_file, write_json
from semi_nnunet.util.shards import shard_of
from tests.forking import forked

CPU = torch.device("cpu")


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def nnunet_predicts(
    model, images: Path, out: Path, mirror: bool, npz: bool = False, previous: Path | None = None
) -> None:
    """nnUNetv2_predict, in this process; ``previous`` is -prev_stage_predictions."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model.folder), model.folds)
    files = [[str(path)] for path in sorted(images.glob("*.nii.gz"))]
    out.mkdir()
    for (file,) in files:
        name = Path(file).name.removesuffix("_0000.nii.gz")
        reader = predictor.plans_manager.image_reader_writer_class()
        image, properties = reader.read_images([file])
        before = previous and reader.read_seg(str(previous / f"{name}.nii.gz"))[0]
        predictor.predict_single_npy_array(image, properties, before, str(out / name), npz)


def label(request: Request) -> None:
    """All of a pool, in this process."""
    request.begin()
    part = PoolShard(request, 0, 1)
    list(run_shard(part, Labeller(request.trained, request.views, CPU), part.left()))


@pytest.mark.parametrize("mirror", [False, True])
def test_one_model_labels_as_nnunet_predicts(pool, tmp_path, mirror):
    views = ("flips",) if mirror else ()
    label(Request(pool.images, pool.out, (pool.names[0],), views))
    nnunet_predicts(pool.models[0], pool.images, tmp_path / "nnunet", mirror)
    names = sorted(path.name for path in (tmp_path / "nnunet").glob("*.nii.gz"))
    assert names == sorted(path.name for path in (pool.out / "labels").iterdir())
    found = set()
    for name in names:
        ours = read(pool.out / "labels" / name)
        assert np.array_equal(ours, read(tmp_path / "nnunet" / name))
        found |= set(np.unique(ours))
    assert len(found) > 1  # the models see something


def test_several_models_are_nnunets_ensemble_and_one_with_itself_is_that_one(pool, tmp_path):
    label(Request(pool.images, pool.out, tuple(pool.names), npz=True))
    for number, model in enumerate(pool.models):
        nnunet_predicts(model, pool.images, tmp_path / f"of_{number}", False, npz=True)
    ensemble_folders(
        [str(tmp_path / f"of_{number}") for number in range(2)], str(tmp_path / "both"),
        num_processes=1, dataset_json_file_or_dict=pool.models[0].dataset_json,
        plans_json_file_or_dict=pool.models[0].plans,
    )  # fmt: skip
    label(Request(pool.images, tmp_path / "twice", (pool.names[0],) * 2))
    for path in (tmp_path / "both").glob("*.nii.gz"):
        assert np.array_equal(read(pool.out / "labels" / path.name), read(path))
        alone = read(tmp_path / "of_0" / path.name)
        assert np.array_equal(read(tmp_path / "twice" / "labels" / path.name), alone)
        probabilities = np.load(pool.out / "labels" / f"{path.name[:-7]}.npz")["probabilities"]
        assert probabilities.dtype == np.float16 and np.allclose(probabilities.sum(0), 1, atol=0.01)
    entries = Request(pool.images, tmp_path / "twice", (pool.names[0],) * 2).done().values()
    assert all(entry.facts["uncertainty"]["disagreement"] in (0.0, 1.0) for entry in entries)


def stock_model(pool, configuration: str):
    """A model of nnU-Net's own trainer, whose network sees something."""
    model = pool.models[0]
    plans = {**model.plans, "continue_training": False}
    trainer = nnUNetTrainer(plans, configuration, 0, model.dataset_json, CPU)
    trainer.initialize()
    for parameter in trainer.network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for name in ("plans", "dataset"):
        shutil.copy(model.folder / f"{name}.json", trainer.output_folder_base)
    return find_model(trainer.output_folder_base)


def test_nnunets_own_trainer_and_several_configurations(pool, tmp_path):
    torch.manual_seed(0)
    models = [stock_model(pool, "2d"), stock_model(pool, "3d_fullres"), pool.models[0]]
    folders = [tmp_path / str(number) for number in range(3)]
    for model, folder in zip(models, folders, strict=True):
        nnunet_predicts(model, pool.images, folder, mirror=False, npz=True)
    ensemble_folders(
        list(map(str, folders)), str(tmp_path / "ensemble"), num_processes=1,
        dataset_json_file_or_dict=pool.models[0].dataset_json,
        plans_json_file_or_dict=pool.models[0].plans,
    )  # fmt: skip
    request = Request(pool.images, pool.out, tuple(str(model.folder) for model in models))
    label(request)
    for path in sorted((tmp_path / "ensemble").glob("*.nii.gz")):
        assert np.array_equal(read(request.labels / path.name), read(path))
    found = [len(np.unique(read(path))) for path in request.labels.glob("*.nii.gz")]
    assert len(found) == 4 and max(found) > 1


@pytest.mark.parametrize("mirror", [False, True])
def test_a_second_stage_labels_after_the_first_as_nnunet_predicts(cascade, tmp_path, mirror):
    second, first = cascade.models
    folders = [tmp_path / stage for stage in ("first", "second")]
    nnunet_predicts(first, cascade.images, folders[0], mirror)
    nnunet_predicts(second, cascade.images, folders[1], mirror, previous=folders[0])
    request = Request(cascade.images, cascade.out, (str(second.folder),), ("flips",) * mirror)
    label(request)
    depends = 0
    for path in sorted(folders[1].glob("*.nii.gz")):
        assert np.array_equal(read(request.labels / path.name), read(path))
        depends += len(np.unique(read(path))) > 1 and len(np.unique(read(folders[0] / path.name)))
    assert depends > 1
    assert request.record()["models"][0]["previous"] == first.record()
    seen = replace(request, out=tmp_path / "seen", views=("rot90", "blur", "noise"))
    label(seen)
    assert any(
        (read(path) != read(seen.labels / path.name)).any() for path in request.labels.iterdir()
    )


def test_a_second_stage_after_the_first_of_other_data_is_refused(cascade):
    second, first = cascade.models
    description = first.dataset_json
    write_json(first.folder / "dataset.json", {**description, "labels": {"background": 0, "a": 1}})
    with pytest.raises(UserError, match=r"3d_lowres fold 0: must have the labels of"):
        find_models([str(second.folder)])


def test_models_that_read_files_by_other_libraries_are_refused(pool):
    folder = pool.models[1].folder
    write_json(folder / "plans.json", {**pool.models[1].plans, "image_reader_writer": "NibabelIO"})
    with pytest.raises(UserError, match=r"must read files as .* by SimpleITKIO, got NibabelIO"):
        find_models(pool.names)


def test_the_folder_of_a_model_has_three_names_and_more_in_the_first(pool, tmp_path):
    folder = tmp_path / "Dataset901_Other" / f"old__{pool.models[0].folder.name}"
    shutil.copytree(pool.models[0].folder, folder)
    assert find_model(str(folder)).previous is None
    shutil.move(folder, tmp_path / "Dataset901_Other" / "mine")
    with pytest.raises(UserError, match="give a folder TRAINER__PLANS__CONFIGURATION"):
        find_models([str(tmp_path / "Dataset901_Other" / "mine")])


def test_a_second_stage_without_the_first_is_refused(cascade):
    second, first = cascade.models
    (first.folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(
        UserError, match=r"needs the predictions of 3d_lowres, there is no .*fold_0"
    ):
        find_models([str(second.folder)])


def test_views_change_the_labels_and_unsure_voxels_are_ignored(pool, tmp_path):
    one = Request(pool.images, pool.out, (pool.names[0],))
    label(one)
    seen = replace(one, out=tmp_path / "seen", views=("rot90", "gamma", "blur", "noise"))
    label(seen)
    sure = replace(one, out=tmp_path / "sure", confidence=0.6)
    label(sure)
    different = ignored = 0
    for path in one.labels.iterdir():
        plain, careful = read(path), read(sure.labels / path.name)
        different += (plain != read(seen.labels / path.name)).sum()
        assert np.array_equal(plain[careful != 4], careful[careful != 4])
        ignored += (careful == 4).sum()  # the phantom's labels are 0 to 3
    assert different and ignored


def test_the_command_cuts_the_pool_writes_the_table_and_does_nothing_twice(pool, capfd):
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", *pool.names]
    words += ["--device", "cpu", "--shards", "2"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "labelled 4 cases" in said
    rows = list(csv.DictReader((pool.out / "uncertainty.csv").open()))
    assert len(rows) == 4 and list(rows[0]) == ["case", "entropy", "disagreement"]
    assert [r["case"] for r in rows] == [
        r["case"] for r in sorted(rows, key=lambda r: float(r["disagreement"]))
    ]
    before = {path: path.stat().st_mtime_ns for path in (pool.out / "labels").iterdir()}
    new = next(pool.images.iterdir())
    shutil.copy(new, new.with_name(f"another_{new.name}"))
    assert main([*words, "--jobs", "1"]) == 0
    assert "labelled 5 cases" in capfd.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert main([*words[:-2], "--views", "blur"]) == 2
    assert "was begun with other images, models, views" in capfd.readouterr().err


KILLS = 10


def test_what_is_killed_at_any_moment_is_done_once_and_whole(pool, tmp_path):
    for number in range(3 * KILLS):  # more than the runs below do before they are killed
        source = next(pool.images.iterdir())
        shutil.copy(source, pool.images / f"more{number}_0000.nii.gz")
    clean = Request(pool.images, tmp_path / "clean", (pool.names[0],))
    started = time.monotonic()
    label(clean)
    a_case = (time.monotonic() - started) / len(clean.cases)
    request, chance = replace(clean, out=pool.out), random.Random(0)
    request.begin()
    part = PoolShard(request, 0, 1)
    for number in range(KILLS):
        process = forked(worker, part, tmp_path / f"log{number}")
        wanted = len(finished_by(part)) + chance.choice([1, 2])
        while process.is_alive() and len(finished_by(part)) < wanted:
            time.sleep(a_case / 20)
        time.sleep(chance.uniform(0, a_case))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (tmp_path / f"log{number}").read_text()
    assert request.done() and request.left()
    goes_on_to_what_was_wanted(part, clean, tmp_path / "log")


def test_a_kill_at_any_step_of_writing_costs_that_case_alone(pool, tmp_path):
    """Before, and in the middle of, everything that reaches the disk; torn files are half there."""
    clean = Request(pool.images, tmp_path / "clean", (pool.names[0],), npz=True)
    label(clean)
    request = replace(clean, out=pool.out)
    request.begin()
    part, steps = PoolShard(request, 0, 1), []
    for torn in (False, True):
        for number in range(1, len(WRITES) + 1):
            process = forked(killed_worker, part, tmp_path / "log", number, torn)
            process.join()
            assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
            steps.append((tmp_path / "log").read_text().splitlines()[-1])
    assert steps == [f"killed at {name}" for name in 2 * WRITES]
    assert len(finished_by(part)) == 1  # killed after its line was whole
    goes_on_to_what_was_wanted(part, clean, tmp_path / "log")


def goes_on_to_what_was_wanted(part: PoolShard, clean: Request, log: Path) -> None:
    """A last worker does what is missing: each case once, equal to a clean run's, nothing else."""
    process = forked(worker, part, log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    written, wanted = (
        {path.name: sha256_of_file(path) for path in one.labels.iterdir()}
        for one in (part.request, clean)
    )
    assert written == wanted
    assert sorted(finished_by(part)) == sorted(clean.cases)
    assert not [path for path in part.folder.rglob("*") if path.name.startswith(".writing_")]


WRITES = ["flush .nii.gz", "rename .nii.gz", "flush .npz", "rename .npz", "flush .jsonl"]


def killed_worker(part: PoolShard, log: Path, at: int, torn: bool) -> None:
    """A worker that is killed at its write ``at``; what it was about to flush is cut in half."""
    calls, (fsync, rename) = itertools.count(1), (os.fsync, os.replace)

    def end_of(path: str) -> str:
        return next(ending for ending in (".nii.gz", ".npz", ".jsonl") if path.endswith(ending))

    def reached(name: str, path: str) -> None:
        if next(calls) < at:
            return
        if torn:
            os.truncate(path, os.path.getsize(path) // 2)
        log.write_text(f"killed at {name} {end_of(path)}")
        os.kill(os.getpid(), signal.SIGKILL)

    def killing_fsync(file: int) -> None:
        reached("flush", os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    def killing_rename(source: Path, target: Path) -> None:
        reached("rename", str(source))
        rename(source, target)

    os.fsync, os.replace = killing_fsync, killing_rename
    worker(part, log)


def worker(part: PoolShard, log: Path) -> None:
    """The process that labels a part."""
    words = ["pseudo-label", *part.arguments(), "--only", "0", "--worker", "--device", "cpu"]
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        if main(words):
            sys.exit(1)


def finished_by(part: PoolShard) -> list[str]:
    """The case of every whole line of a part's list."""
    lines = part.finished.read_text().splitlines() if part.finished.is_file() else []
    return [json.loads(line)["case"] for line in lines if line.endswith("}")]


def test_a_bad_image_is_set_aside_and_the_others_go_on(pool, capfd):
    bad = sorted(pool.images.iterdir())[1]
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    assert main([*words, "--device", "cpu"]) == 0
    said = capfd.readouterr().out
    assert "labelled 3 cases" in said and f"set aside: {bad.name[:-12]}: {bad.name}" in said
    assert main([*words, "--device", "cpu"]) == 0  # as it is, it is not tried again
    assert "0 parts to do" in capfd.readouterr().out
    bad.write_bytes(content)
    assert main([*words, "--device", "cpu"]) == 0
    assert "labelled 4 cases" in capfd.readouterr().out


def test_a_case_belongs_to_one_part(pool):
    request = Request(pool.images, pool.out, (pool.names[0],))
    for count in (1, 3, 7):
        cases = [
            case for number in range(count) for case in PoolShard(request, number, count).cases()
        ]
        assert sorted(cases) == sorted(request.cases)
    assert {shard_of(f"case{i}", 8) for i in range(200)} == set(range(8))


def test_tasks_of_a_cluster_label_their_parts(pool, tmp_path):
    request = Request(pool.images, pool.out, (pool.names[0],))
    request.begin()
    words = ["pseudo-label", *PoolShard(request, 0, 2).arguments(), "--device", "cpu"]
    (tmp_path / "array.sh").write_text(batch_script(words, [0, 1], 2, tmp_path, ""))
    for number in ("0", "1"):
        subprocess.run(
            ["bash", str(tmp_path / "array.sh")],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": number},
            check=True,
        )
    assert not request.left() and len(request.done()) == 4


# ---- what cannot be used


def test_where_a_model_was_looked_for_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    with pytest.raises(UserError, match=r"looked for .* in nowhere and .*results/nowhere"):
        find_model("nowhere")


def test_a_model_is_found_by_its_folder_a_fold_or_below_the_results(pool, monkeypatch):
    folder = pool.models[0].folder
    assert find_model(str(folder / "fold_0")) == pool.models[0]
    monkeypatch.setenv("nnUNet_results", str(folder.parent.parent))
    assert find_model(f"{folder.parent.name}/{folder.name}") == pool.models[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("labels", {"background": 0, "other": 1}), ("channel_names", {"0": "A", "1": "B"})],
)
def test_models_of_other_data_are_refused(pool, key, value):
    path = pool.models[1].folder / "dataset.json"
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(UserError, match=rf"must have the {key} of .*seed0"):
        find_models(pool.names)


def test_an_empty_pool_is_refused(pool, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ["pseudo-label", "-i", str(tmp_path / "empty"), "-o", str(pool.out)]
    assert main([*words, "-m", pool.names[0], "--device", "cpu"]) == 2
    assert "holds no image CASE_0000.nii.gz" in capsys.readouterr().err


def test_a_full_disk_is_no_bad_image(pool, monkeypatch):
    def full(source, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semi_nnunet.pseudo_labels.pool.put_in_place", full)
    request = Request(pool.images, pool.out, (pool.names[0],))
    with pytest.raises(UserError, match="No space left on device"):
        label(request)
    assert not request.bad() and not request.done()


def test_channels_that_do_not_fit_the_model_are_set_aside(pool):
    bad, *others = sorted(pool.images.iterdir())
    shutil.copy(bad, bad.with_name(bad.name.replace("_0000", "_0001")))  # the model knows one
    request = Request(pool.images, pool.out, (pool.names[0],))
    label(request)
    assert not request.left() and len(request.done()) == len(others)
    (problem,) = request.bad().values()
    assert "is a channel too many" in str(problem)


def test_an_image_that_no_network_takes_is_set_aside_and_the_others_go_on(pool, monkeypatch):
    whole = Labeller.__call__

    def fails_once(self, images):
        if images[0] == str(first):
            raise RuntimeError("Given groups=1, weight of size [4, 1, 3, 3], expected 1 channels")
        return whole(self, images)

    first = sorted(pool.images.iterdir())[0]
    monkeypatch.setattr(Labeller, "__call__", fails_once)
    request = Request(pool.images, pool.out, (pool.names[0],))
    label(request)
    assert not request.left() and len(request.done()) == 3 and len(request.bad()) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        MemoryError(),
    ],
)
def test_an_image_too_large_for_the_memory_is_tried_again_after_all_others(
    pool, monkeypatch, error
):
    first = sorted(pool.images.iterdir())[0]
    whole = Labeller.__call__

    def fails(self, images):
        if images[0] == str(first):
            raise error
        return whole(self, images)

    request = Request(pool.images, pool.out, (pool.names[0],))
    with monkeypatch.context() as patch, pytest.raises(UserError, match="memory was too small for"):
        patch.setattr(Labeller, "__call__", fails)
        label(request)
    assert len(request.done()) == 3 and not request.bad()
    assert request.left() == [first.name.removesuffix("_0000.nii.gz")]
    label(request)
    assert not request.left()


def test_a_device_that_fails_condemns_no_image(pool, monkeypatch):
    request = Request(pool.images, pool.out, (pool.names[0],))

    def fails(self, images):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="illegal memory access"):
        patch.setattr(Labeller, "__call__", fails)
        label(request)
    assert len(request.left()) == 4
    label(request)
    assert not request.left()


def test_images_that_changed_or_went_are_not_done(pool):
    request = Request(pool.images, pool.out, (pool.names[0],))
    label(request)
    changed, gone, *_ = sorted(pool.images.iterdir())
    shutil.copy(gone, changed)
    gone.unlink()
    again = replace(request)
    assert again.left() == [changed.name.removesuffix("_0000.nii.gz")]
    assert gone.name.removesuffix("_0000.nii.gz") not in again.done()


def test_the_same_name_in_another_data_set_is_another_model(pool, tmp_path):
    other = tmp_path / "Dataset999_Other" / pool.models[0].folder.name
    shutil.copytree(pool.models[0].folder, other)
    one = Request(pool.images, pool.out, (pool.names[0],))
    for models in ((str(other),), (pool.names[0], str(other)), (pool.names[0],) * 2):
        assert replace(one, models=models).record() != one.record()


def test_a_probability_is_one(pool, capsys):
    words = ["pseudo-label", "-i", str(pool.images), "-o", str(pool.out), "-m", pool.names[0]]
    assert main([*words, "--confidence", "80"]) == 2
    assert "must be a probability" in capsys.readouterr().err


def test_the_spacing_of_a_tif_comes_with_its_label(pool, tmp_path):
    folder = tmp_path / "tif"
    folder.mkdir()
    for path in pool.images.iterdir():
        case, image = path.name.removesuffix("_0000.nii.gz"), sitk.ReadImage(str(path))
        tifffile.imwrite(folder / f"{case}_0000.tif", sitk.GetArrayFromImage(image))
        spacing = {"spacing": list(image.GetSpacing())[::-1]}
        write_json(folder / f"{case}.json", spacing)
    description = pool.models[0].folder / "dataset.json"
    write_json(description, {**read_json(description), "file_ending": ".tif"})
    plans = pool.models[0].folder / "plans.json"
    write_json(plans, {**read_json(plans), "image_reader_writer": "Tiff3DIO"})
    request = Request(folder, pool.out, (pool.names[0],))
    label(request)
    assert len(request.done()) == 4 and not request.bad()
    for case in request.cases:
        written = read_json(request.labels / f"{case}.json")["spacing"]
        assert written == pytest.approx(read_json(folder / f"{case}.json")["spacing"])
