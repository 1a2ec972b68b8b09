"""Tests of semi_nnunet audit on a phantom with simulated predictions: ranking, files, refusals."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from skimage import io

import semi_nnunet
from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.preprocessing.manifest import read_sources
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv
from tests.annotation.conftest import set_folders
from tests.annotation.test_disagreement import ERRORS, predict
from tests.conftest import no_processes
from tests.report.parsed_page import Elements

NAME, CASES = "Dataset978_Audit", 10
MODEL = "SemiBaselineTrainer__nnUNetPlans__2d"
WRONG = {"phantom_0002": "swapped", "phantom_0005": "shifted", "phantom_0008": "slice"}


def read(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(io.imread(path))[None]
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write(path: Path, array: np.ndarray, like: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        io.imsave(path, array[0].astype(np.uint8), check_contrast=False)
        return
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.CopyInformation(sitk.ReadImage(str(like)))
    sitk.WriteImage(image, str(path))


def make_audited(
    root: Path,
    patch: pytest.MonkeyPatch,
    errors: dict[str, str],
    ending: str = ".nii.gz",
    **options: object,
) -> None:
    """Write a phantom with errors in its labels, and predictions of two folds without them."""
    raw = root / "raw" / NAME
    shape = {"shape": (8, 32, 32), "unlabelled": 1, "test": 0, **options}
    write_phantom_dataset(raw, labelled=CASES, file_ending=ending, **shape)  # type: ignore[arg-type]
    folds = root / "results" / NAME / MODEL
    paths = sorted((raw / "labelsTr").glob(f"*{ending}"))
    cases = [path.name.removesuffix(ending) for path in paths]
    for number, (path, case) in enumerate(zip(paths, cases, strict=True)):
        truth = read(path)
        write(folds / f"fold_{number % 2}/validation" / path.name, predict(truth, number), path)
        if case in errors:
            rng = np.random.default_rng(1)
            write(path, ERRORS[errors[case]](truth, rng), path)
    set_folders(patch, root)
    with no_processes():
        assert main(["preprocess", "-d", "978", "-np", "1", "-c", "2d"]) == 0
    preprocessed = root / "preprocessed" / NAME
    sides = [cases[0::2], cases[1::2]]
    split = [{"train": sides[1 - n], "val": sides[n]} for n in (0, 1)]
    (preprocessed / "splits_final.json").write_text(json.dumps(split))
    for number, fold in enumerate(split):
        folder = folds / f"fold_{number}"
        (folder / "checkpoint_final.pth").write_bytes(b"weights")
        (folder / "validation" / "summary.json").write_text("{}")
        kinds = {"labelled": fold["train"], "validation": fold["val"]}
        arrays = preprocessed / "nnUNetPlans_2d"
        sources = {kind: read_sources(arrays, names) for kind, names in kinds.items()}
        (folder / "semi_settings.json").write_text(json.dumps({"sources": sources}))
    for name in ("plans.json", "dataset.json"):
        source = "nnUNetPlans.json" if name == "plans.json" else name
        shutil.copy(preprocessed / source, folds / name)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        make_audited(root, patch, WRONG)
    return root


@pytest.fixture
def audited(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data set, which is the current folder."""
    root = tmp_path / "audited"
    shutil.copytree(template, root)
    set_folders(monkeypatch, root)
    monkeypatch.chdir(root)
    return root


def test_planted_errors_stand_first(audited, capsys):
    assert main(["audit", "-d", "978"]) == 0
    printed = capsys.readouterr().out
    _, rows = read_csv("audit.csv")
    ranked = list(dict.fromkeys(row["case"] for row in rows))
    assert {*ranked[:3]} == {*WRONG} and len(ranked) == CASES
    assert ranked[0] in printed and "agree" in printed
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    by_case = {case: [row for row in rows if row["case"] == case] for case in ranked}
    assert "swapped" in by_case["phantom_0002"][0]["reason"]
    assert {len(group) for group in by_case.values()} == {3}  # a row for each class
    assert all(Path(row["label"]).is_file() for row in rows)
    page = Elements(Path("audit.html").read_text(encoding="utf-8"))
    assert all(case in page.text for case in ranked)


def test_a_model_and_its_data_set_give_the_same_list(audited):
    first = semi_nnunet.audit(
        "978", trainers=["SemiBaselineTrainer"], out=Path("a.html"), pictures=1
    )
    second = semi_nnunet.audit(model=f"978/{MODEL}", out=Path("b.html"), pictures=1)
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()
    assert [label.case for label in first.labels] == [label.case for label in second.labels]


def test_folds_limit_the_cases(audited):
    result = semi_nnunet.audit("978", folds=["1"], pictures=2)
    assert [label.files.fold for label in result.labels] == ["1"] * (CASES // 2)


def test_missing_predictions_are_named_and_nothing_is_written(audited):
    folder = audited / "results" / NAME / MODEL
    (folder / "fold_1" / "validation" / "phantom_0003.nii.gz").unlink()
    with pytest.raises(UserError, match=r"phantom_0003(.|\n)*semi_nnunet crossval"):
        semi_nnunet.audit("978", pictures=1)
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(UserError, match="fold 0, 1"):
        semi_nnunet.audit("978", pictures=1)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"no predictions(.|\n)*crossval"):
        semi_nnunet.audit("978", pictures=1)
    assert not list(Path().glob("audit*"))


def test_an_incomplete_model_is_left_out_if_another_is_complete(audited, capsys):
    model = audited / "results" / NAME / MODEL
    shutil.copytree(model / "fold_0", model.with_name("nnUNetTrainer__nnUNetPlans__2d") / "fold_0")
    assert main(["audit", "-d", "978", "--pictures", "1"]) == 0
    assert "left out" in capsys.readouterr().out


def test_two_models_average_their_scores(audited):
    once = semi_nnunet.audit("978", pictures=1)
    model = audited / "results" / NAME / MODEL
    shutil.copytree(model, model.with_name("nnUNetTrainer__nnUNetPlans__2d"))
    twice = semi_nnunet.audit("978", pictures=1)
    assert [label.suspicion for label in once.labels] == [label.suspicion for label in twice.labels]


def test_labels_that_changed_after_the_predictions_are_refused(audited, capsys):
    path = audited / "raw" / NAME / "labelsTr" / "phantom_0004.nii.gz"
    label = read(path)
    label[:, :4] = 0
    label[3, 20:24, 20:24] = 1
    write(path, label, path)
    with pytest.raises(UserError, match="phantom_0004"):  # not preprocessed yet
        semi_nnunet.audit("978", pictures=1)
    with no_processes():
        assert main(["preprocess", "-d", "978", "-np", "1", "-c", "2d"]) == 0
    with pytest.raises(UserError, match="label of phantom_0004"):
        semi_nnunet.audit("978", pictures=1)
    assert not list(Path().glob("audit*"))


def test_a_network_that_was_trained_again_needs_its_validation(audited):

    folder = audited / "results" / NAME / MODEL / "fold_0"
    later = (folder / "validation" / "summary.json").stat().st_mtime + 600
    os.utime(folder / "checkpoint_final.pth", (later, later))
    with pytest.raises(UserError, match="trained again"):
        semi_nnunet.audit("978", pictures=1)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "-d"),
        (["-d", "978", "-m", f"978/{MODEL}"], "-m"),
        (["-d", "978", "-c", "3d_lowres"], "3d_lowres"),
        (["-d", "978", "-tr", "SemiUnifiedTrainer"], "SemiUnifiedTrainer"),
        (["-d", "978", "-f", "7"], "7"),
        (["-d", "978", "-o", "audit.csv"], "HTML"),
        (["-d", "978", "-np", "0"], "-np"),
    ],
)
def test_mistakes_are_named(audited, capsys, words, match):
    assert main(["audit", *words]) != 0
    assert match in capsys.readouterr().err
    assert not list(Path().glob("audit*"))


@pytest.mark.parametrize("kind", ["regions", "ignore"])
def test_regions_and_ignored_voxels(tmp_path, monkeypatch, kind):
    make_audited(tmp_path, monkeypatch, {}, label_kind=kind)
    monkeypatch.chdir(tmp_path)
    assert len(semi_nnunet.audit("978", pictures=1).labels) == CASES


def test_pictures_are_audited(tmp_path, monkeypatch):
    errors = {"phantom_0003": "shifted", "phantom_0006": "eroded"}
    make_audited(tmp_path, monkeypatch, errors, ".png", shape=(1, 48, 48))
    monkeypatch.chdir(tmp_path)
    ranked = [label.case for label in semi_nnunet.audit("978", pictures=1).labels]
    assert {*ranked[:2]} == {*errors}
