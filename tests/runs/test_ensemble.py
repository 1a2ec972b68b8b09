"""Ensembles are the mean of the members' probabilities; what cannot be averaged is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.cli.main import main
from semi_nnunet.raw.layout import PREDICTED_FROM
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.ensemble import (
    VALIDATION,
    EnsembleMember,
    find_ensemble_problems,
    group_members,
    measure_members,
    weigh_members,
    write_ensemble,
)

TRAINER = "SemiMeanTeacherTrainer"


def mean_labels(folders: list[Path], weights: list[int], case: str) -> np.ndarray:
    probabilities = [np.load(folder / f"{case}.npz")["probabilities"] for folder in folders]
    return np.average(np.stack(probabilities), axis=0, weights=weights).argmax(0)


@pytest.mark.slow
def test_it_is_the_mean_of_the_members(folders, tmp_path, capfd):
    dataset = ["-d", folders.raw.name, "-p", "tiny"]
    jobs = [*dataset, "-c", "2d", "-tr", TRAINER, "-f", "0", "--seeds", "2"]
    assert main(["crossval", *jobs, "--device", "cpu", "--npz"]) == 0
    out = tmp_path / "together"
    assert main(["ensemble", *dataset, "-o", str(out)]) == 0
    tables = capfd.readouterr().out.split("mean Dice of the ")[1:]
    assert [table.split()[0] for table in tables] == ["validation", "test"]
    for table, of_members in zip(tables, ("2d seed", "2d fold 0 seed"), strict=True):
        assert table.count(f"  {TRAINER} {of_members}") == 2 and table.count("  ensemble ") == 1
    members = find_jobs(folders, "tiny")
    for subset in ("test", "validation"):
        inputs = [job.folder / subset for job in members]
        cases = [path.stem for path in inputs[0].glob("*.npz")]
        assert cases and (out / subset / "metrics.csv").is_file()
        for case in cases:
            got = sitk.GetArrayFromImage(sitk.ReadImage(str(out / subset / f"{case}.nii.gz")))
            assert np.array_equal(got, mean_labels(inputs, [1, 1], case))
    assert [job_of_member["weight"] for job_of_member in read_json(out / "test/members.json")] == [
        1,
        1,
    ]
    assert main(["ensemble", *dataset, "-o", str(out)]) == 0  # again
    corrected = next((out / "test").glob("*.nii.gz"))
    sitk.WriteImage(sitk.ReadImage(str(corrected)) * 0, str(corrected))
    with pytest.raises(UserError, match=corrected.name):
        write_weighted(members, [1, 1], out / "test")
    corrected.unlink()
    (out / "test/notes.txt").touch()
    with pytest.raises(UserError, match=f"edited.*{corrected.name}"):
        write_weighted(members, [1, 1], out / "test")
    merged = write_weighted(members, [1, 3], tmp_path / "weighted")
    (merged / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt"):
        write_weighted(members, [1, 3], merged)
    (merged / "notes.txt").unlink()
    inputs = [job.test for job in members]
    for path in merged.glob("*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        got = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert np.array_equal(got, mean_labels(inputs, [1, 3], case))
    record = members[0].test / PREDICTED_FROM  # as if an image had changed since
    image = next(name for name in read_json(record) if name.startswith("image"))
    write_json(record, {**read_json(record), image: "of another content"})
    assert main(["ensemble", *dataset, "-o", str(tmp_path / "stale")]) == 2
    assert image in capfd.readouterr().err and not (tmp_path / "stale").exists()


def write_weighted(jobs: list[Job], weights: list[int], out: Path) -> Path:
    members = [EnsembleMember(job, weight) for job, weight in zip(jobs, weights, strict=True)]
    write_ensemble(members, "test", out, processes=1)
    return out


def test_probabilities_that_were_not_kept_are_predicted_without_another_training(folders):
    trained = Job(folders, TRAINER, "2d", "0", 0, "tiny")
    (case,) = folders.test_cases()
    for folder in (trained.validation, trained.test):
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("x")
        (folder / f"{case}.nii.gz").write_text("x")
    (trained.validation / "summary.json").write_text("x")
    (trained.folder / "checkpoint_final.pth").write_text("x")
    assert trained.is_done and not list(trained.commands("cpu", 1))
    assert len(find_ensemble_problems(weigh_members([trained], None), "test")) == 1
    requested = replace(trained, npz=True)
    assert not requested.is_done
    commands = requested.commands("cpu", 1)
    validation = next(commands)
    assert validation[0] == "nnUNetv2_train" and {"--val", "--npz"} <= set(validation)
    (trained.validation / f"{case}.npz").write_text("x")
    assert "--save_probabilities" in next(commands)
    (trained.validation / "another.nii.gz").write_text(
        "x"
    )  # killed before its probabilities were written
    assert not replace(requested, fold="0").is_validated


def job(trainer: str, fold: str, seed: int = 0) -> Job:
    return Job(Folders(Path("raw"), Path("pre"), Path("res")), trainer, "2d", fold, seed, "plans")


def test_weights_are_of_models_in_the_order_they_were_named():
    jobs = [job("A", "0"), job("B", "0"), job("A", "1"), job("B", "1")]
    assert [member.weight for member in weigh_members(jobs, ["1", "2"])] == [1, 2, 1, 2]
    assert [member.weight for member in weigh_members(jobs, ["1", "2", "3", "4"])] == [1, 2, 3, 4]
    for weights in (["1"], ["1", "2", "3"], ["0", "1"], [".5", "1"], ["-1", "1"]):
        with pytest.raises(UserError, match=r"in this order: A 2d, B 2d; or .* 4 trainings: A 2d"):
            weigh_members(jobs, weights)


def test_validation_cases_are_averaged_over_members_of_their_fold_only(monkeypatch):
    monkeypatch.setattr(Job, "predicted_cases", lambda self, subset: set())
    members = weigh_members([job("A", "0"), job("A", "1"), job("A", "all"), job("B", "0")], None)
    groups_found = [
        [str(m.job)[:15] for m in group] for group in group_members(members, VALIDATION)
    ]
    assert groups_found == [["A 2d fold 0 see", "B 2d fold 0 see"], ["A 2d fold 1 see"]]
    names = [str(problem) for problem in find_ensemble_problems(members, VALIDATION)]
    assert any("B 2d seed 0: is not trained" in name for name in names)


def test_a_member_that_lacks_a_case_is_named(tmp_path):
    folders = Folders(tmp_path / "raw", tmp_path / "pre", tmp_path / "res")
    folders.preprocessed.mkdir()
    write_json(folders.preprocessed / "dataset.json", {"file_ending": ".nii.gz"})
    jobs = [replace(job(name, "0"), folders=folders) for name in ("A", "B")]
    for number, job_of_member in enumerate(jobs):
        job_of_member.validation.mkdir(parents=True)
        for case in ("x", "y"):
            (job_of_member.validation / f"{case}.nii.gz").write_text("x")
        for case in ("x", "y")[number:]:
            (job_of_member.validation / f"{case}.npz").write_text("x")
    (problem,) = find_ensemble_problems(weigh_members(jobs, None), VALIDATION)
    assert "B 2d fold 0" in str(problem) and "probabilities of x" in str(problem)


def test_a_class_that_one_of_them_invents_counts_for_all(tmp_path, capsys):
    folders = Folders(tmp_path / "raw", tmp_path / "pre", tmp_path / "res")
    jobs = [replace(job(name, "0"), folders=folders) for name in ("Right", "Inventor", "Absent")]
    out = tmp_path / "out"
    for folder, second in ((jobs[0].validation, ""), (jobs[1].validation, "0"), (out, "")):
        folder.mkdir(parents=True)
        table = f"case,class,dice\nx,liver,0.5\nx,tumour,{second}\nx,nowhere,\n"
        (folder / "metrics.csv").write_text(table)
    dice = measure_members(weigh_members(jobs, None), VALIDATION, out)
    assert {name.split()[0]: value for name, value in dice.items()} == {
        "Right": 0.75, "Inventor": 0.25, "Absent": None, "ensemble": 0.75,
    }  # fmt: skip


def test_members_are_measured_on_the_cases_of_all_folds_as_the_ensemble_is(tmp_path, capsys):
    folders = Folders(tmp_path / "raw", tmp_path / "pre", tmp_path / "res")
    jobs = [replace(job("A", fold), folders=folders) for fold in ("0", "1")]
    out, rows = tmp_path / "out", ("x,liver,0.2\n", "y,liver,0.6\n")
    for folder, content in (
        (jobs[0].validation, rows[0]), (jobs[1].validation, rows[1]), (out, "".join(rows)),
    ):  # fmt: skip
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"case,class,dice\n{content}")
    dice = measure_members(weigh_members(jobs, None), VALIDATION, out)
    assert dice == {"A 2d seed 0": pytest.approx(0.4), "ensemble": pytest.approx(0.4)}


def test_an_ensemble_without_members_is_refused(folders, capsys, tmp_path):
    words = ["ensemble", "-d", folders.raw.name, "-p", "tiny", "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "no training matches" in capsys.readouterr().err


def test_a_name_that_was_not_trained_is_named(folders, capsys, tmp_path):
    """Averaging the others in silence would be another ensemble than the one asked for."""
    folder = folders.results / "SemiBaselineTrainer__tiny__2d" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "checkpoint_final.pth").write_text("x")
    words = ["ensemble", "-d", folders.raw.name, "-p", "tiny", "-o", str(tmp_path / "out")]
    assert main([*words, "-tr", "SemiBaselineTrainer", "SemiBaseline", "-f", "0", "7"]) == 2
    errors = capsys.readouterr().err
    assert "Fix: did you mean 'SemiBaselineTr" in errors
    assert "tiny. Fix: choose from 0" in errors


def test_members_that_predicted_nothing_are_refused(folders, tmp_path, capsys, monkeypatch):
    job_of_member = Job(folders, "SemiBaselineTrainer", "2d", "all", 0, "tiny")
    job_of_member.folder.mkdir(parents=True)
    (job_of_member.folder / "checkpoint_final.pth").write_text("x")
    monkeypatch.setattr(Folders, "test_images", None)
    words = ["ensemble", "-d", folders.raw.name, "-p", "tiny", "-o", str(tmp_path / "together")]
    assert main(words) == 2
    assert "predicted nothing" in capsys.readouterr().err


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "mine.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        write_ensemble([EnsembleMember(job("A", "0"), 1)], "test", tmp_path / "test", 1)
    assert (tmp_path / "test" / "mine.txt").is_file()
