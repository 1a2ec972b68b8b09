"""The most certain images are selected, shown, and used by trainings until this is undone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.cli.main import main
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json


@pytest.fixture
def dataset(pool, prepared_dataset, tmp_path, monkeypatch) -> Path:
    """The phantom, raw and preprocessed, in folders of the test's own; the preprocessed one."""
    phantom = prepared_dataset("labels", 1)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        shutil.copytree(getattr(phantom, name), tmp_path / name / phantom.raw.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "preprocessed" / phantom.raw.name


def test_trainings_use_the_selected_images(dataset, pool, make_trainer, capfd):
    words = ["select", "-d", dataset.name, "-m", *pool.names, "--device", "cpu"]
    assert main([*words, "--score", "disagreement", "--keep", "2"]) == 0
    assert "2 of 4 unlabelled images are selected" in capfd.readouterr().out
    selected = read_json(dataset / "semi_selected.json")["cases"]
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    assert trainer.unlabelled_cases() == selected and len(selected) == 2
    rows = [
        row.split(",") for row in Path("selection.csv").read_text(encoding="utf-8").splitlines()
    ]
    assert rows[0] == ["case", "score", "kept"] and len(rows) == 5
    assert sorted(case for case, _, is_selected in rows[1:] if is_selected == "1") == selected
    page = Path("selection.html").read_text(encoding="utf-8")
    assert "2 of 4 unlabelled images selected" in page
    assert page.count('<figure class="viewer') == 4 and page.count(", left out</span>") == 2
    assert page.count('src="data:image/png;base64,') == 8
    assert not re.search(r'src="(?!data:)', page)
    assert main(["select", "-d", dataset.name, "--undo"]) == 0
    assert len(make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("score", ["change", "checkpoints"])
def test_labels_are_compared_with_those_of_earlier_models(score, dataset, pool, tmp_path, capfd):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, model in zip(folders, pool.names, strict=True):
        words = ["-i", str(pool.images), "-o", str(folder), "-m", model, "--device", "cpu"]
        assert main(["pseudo-label", *words]) == 0
    select_words = [
        "select",
        "-d",
        dataset.name,
        "-m",
        pool.names[1],
        "--device",
        "cpu",
        "--score",
        score,
    ]
    assert main(select_words) == 2
    assert "--before FOLDER" in capfd.readouterr().err
    assert (
        main([*select_words, "--before", str(folders[1])]) == 0
    )  # the same model: nothing changed
    rows = [
        row.split(",") for row in Path("selection.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert {value for _, value, _ in rows} == {"0.000000"}
    assert main([*select_words, "--before", *map(str, folders)]) == 0
    rows = [
        row.split(",") for row in Path("selection.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    for case, value, _ in rows:
        first_labels, second_labels = (
            sitk.GetArrayFromImage(sitk.ReadImage(folder / "labels" / f"{case}.nii.gz"))
            for folder in folders
        )
        if score == "change":  # of three labellings, of which the last two are equal
            expected = (
                min(1.0, np.mean(first_labels != second_labels) / np.mean(second_labels > 0)) / 2
            )
        else:
            iou = [
                ((first_labels == k) & (second_labels == k)).sum()
                / ((first_labels == k) | (second_labels == k)).sum()
                for k in np.union1d(first_labels, second_labels)
                if k
            ]
            expected = (1 - np.mean(iou) + 0) / 2
        assert float(value) == pytest.approx(expected, abs=1e-5)
    gone = rows[-1][0] if rows[-1][1] != "1.000000" else rows[0][0]
    (folders[0] / "labels" / f"{gone}.nii.gz").unlink()
    assert (
        main([*select_words, "--before", *map(str, folders)]) == 0
    )  # there is nothing to be sure by
    assert f"{gone},1.000000," in Path("selection.csv").read_text(encoding="utf-8")
    shutil.rmtree(folders[0] / "labels")
    (folders[0] / "labels").mkdir()
    assert main([*select_words, "--before", *map(str, folders)]) == 2
    assert "no labels of" in capfd.readouterr().err
    assert main([*select_words[:-2], "--page", "x.csv"]) == 2 and "HTML" in capfd.readouterr().err


def test_images_set_aside_are_not_selected(dataset, pool):
    case = sorted(path.name[:-12] for path in pool.images.glob("*.nii.gz"))[0]
    write_json(dataset / "semi_skipped.json", {case: "bad"})
    words = ["select", "-d", dataset.name, "-m", pool.names[0], "--device", "cpu", "--keep", "1"]
    assert main(words) == 0
    assert case not in read_json(dataset / "semi_selected.json")["cases"]


def test_a_selection_of_other_cases_is_an_error(dataset, make_trainer):
    write_json(dataset / "semi_selected.json", {"cases": ["gone"]})
    with pytest.raises(UserError, match=r"none of the 1 cases .* select --undo"):
        make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()


def test_a_page_that_cannot_be_written_is_reported_before_images_are_labelled(
    dataset, pool, monkeypatch, capsys
):
    def label_pool(*_):
        raise AssertionError("it labels")

    monkeypatch.setattr("semi_nnunet.pseudo_labels.select.label_pool", label_pool)
    words = ["select", "-d", dataset.name, "-m", pool.names[0], "--device", "cpu", "--page"]
    Path("held.csv").mkdir()
    for page, message in (
        ("gone/page.html", "folder gone"),
        ("held.html", "held.csv"),
    ):
        assert main([*words, page]) == 2
        assert message in capsys.readouterr().err


def test_select_without_models_is_refused(dataset, capsys):
    assert main(["select", "-d", dataset.name]) == 2
    assert "select needs models" in capsys.readouterr().err
