"""A submission is called for each case alone, and its cost and quality are joined."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.challenge import efficiency as under_test
from semi_nnunet.challenge.efficiency import Measured, efficiency, problem_of
from semi_nnunet.challenge.sampling import Cost
from semi_nnunet.cli.main import main
from semi_nnunet.util.errors import UserError

SUBMISSION = """
import sys, time, pathlib, shutil
inputs, outputs = map(pathlib.Path, sys.argv[1:3])
(image,) = inputs.iterdir()
print("segments", image.name)
name = image.name.replace("_0000", "")
if name.startswith("slow"): time.sleep(60)
if name.startswith("fails"): sys.exit(4)
if not name.startswith("silent"): shutil.copy(image, outputs / name)
"""


@pytest.fixture
def setting(tmp_path, monkeypatch) -> tuple[str, Path, Path]:
    """A command whose segmentation is the image itself, images, and references."""
    monkeypatch.setattr(under_test.psutil, "cpu_percent", lambda interval: 0.0)
    script = tmp_path / "a submission.py"
    script.write_text(SUBMISSION)
    images, references = tmp_path / "imagesTs", tmp_path / "labelsTs"
    for folder in (images, references):
        folder.mkdir()
    for name in ("good", "half"):
        array = np.zeros((6, 8, 8), np.uint8)
        array[1:5, 2:6, 2:6] = 1
        sitk.WriteImage(sitk.GetImageFromArray(array), str(references / f"{name}.nii.gz"))
        if name == "half":
            array[3:] = 0
        sitk.WriteImage(sitk.GetImageFromArray(array), str(images / f"{name}_0000.nii.gz"))
    labels = {"background": 0, "organ": 1}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1}
    description |= {"file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return f"{sys.executable} '{script}' {{inputs}} {{outputs}}", images, references


def add(images: Path, name: str) -> None:
    (images / f"{name}_0000.nii.gz").write_bytes((images / "good_0000.nii.gz").read_bytes())


def test_cost_and_quality_of_each_case_are_joined(setting, tmp_path):
    command, images, references = setting
    add(images, "silent")
    shutil.copy(references / "good.nii.gz", references / "silent.nii.gz")
    said: list[str] = []
    found = efficiency(command, images, tmp_path / "out", references=references, say=said.append)
    rows = found.cases
    assert list(rows) == ["good", "half", "silent"] and len(said) == 3
    assert rows["good"]["dice"] == 1.0 and rows["good"]["nsd"] == 1.0
    assert rows["half"]["dice"] == pytest.approx(2 * 2 / (2 + 4))
    assert rows["silent"]["dice"] == rows["silent"]["nsd"] == 0.0
    assert [problem.where for problem in found.problems] == ["silent"]
    assert all(row["seconds"] > 0 and row["memory"] > 0 for row in rows.values())
    assert found.means["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    table = (tmp_path / "out" / "efficiency.csv").read_text().splitlines()
    assert table[0] == "case,seconds,cpu_area,memory,own_memory,gpu_area,gpu_memory,dice,nsd"
    assert len(table) == 4
    assert json.loads((tmp_path / "out" / "efficiency.json").read_text())["cases"] == rows
    assert "segments good_0000.nii.gz" in (tmp_path / "out" / "log.txt").read_text()


def test_cases_that_fail_or_take_too_long_are_named_and_others_are_measured(
    setting, tmp_path, capsys
):
    command, images, _ = setting
    add(images, "fails")
    add(images, "slow")
    words = ["efficiency", "-i", str(images), "-o", str(tmp_path / "out"), "--command", command]
    assert main([*words, "--limit", "20"]) == 1
    said = capsys.readouterr().out
    assert "fails: ended with status 4. Fix: see log.txt" in said
    assert "slow: took longer than 20 s and was ended" in said
    assert "mean of 4 cases" in said
    names = {path.name for path in (tmp_path / "out" / "outputs").iterdir()}
    assert names == {"good.nii.gz", "half.nii.gz"}


def test_what_would_make_the_measurement_worthless_is_told_before(setting, tmp_path, monkeypatch):
    command, images, _ = setting
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError) as error:
        efficiency("nonsense_program {inputs}", tmp_path / "full", tmp_path / "full")
    said = str(error.value)
    for part in (
        "must hold {outputs}",
        "nonsense_program: must be a program",
        "images CASE_0000",
        "new or empty",
    ):
        assert part in said
    monkeypatch.setattr(under_test.psutil, "cpu_percent", lambda interval: 80.0)
    with pytest.raises(UserError, match="got 80 % of its processors in use"):
        efficiency(command, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_mistakes_are_told_at_once_before_hours_of_work(setting, tmp_path):
    command, images, references = setting
    (tmp_path / "file").touch()
    (references / "half.nii.gz").unlink()
    with pytest.raises(UserError) as error:
        efficiency(
            f"{command} 'open", images, tmp_path / "file", references=references, limit=-4,
            class_tolerances=["organ"],
        )  # fmt: skip
    said = str(error.value)
    for part in (
        "no closing quotation in", "file: must be new or empty", "--limit: must be above 0, got -4",
        "must be CLASS=MM, got 'organ'", "half: must have the label",
    ):  # fmt: skip
        assert part in said
    with pytest.raises(UserError, match="good: must have the label"):
        efficiency(command, images, tmp_path / "out", references=tmp_path / "nowhere")
    (images / "half_0000.nii.gz").unlink()
    for tolerances in (["liver=2"], {"liver": 2.0}):
        with pytest.raises(UserError, match="must name all of them, organ; got liver"):
            efficiency(
                command, images, tmp_path / "out", references=references,
                class_tolerances=tolerances,
            )  # fmt: skip
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"no dataset\.json says what the classes are"):
        efficiency(command, images, tmp_path / "out", references=references)
    assert not (tmp_path / "out").exists()


def test_the_same_command_goes_on_where_it_was_interrupted(setting, tmp_path, monkeypatch):
    command, images, references = setting
    out, called, one_case = tmp_path / "out", list[str](), under_test.one_case

    def interrupted(words, folder, files, limit):
        called.append(Path(files[0]).name)
        if len(called) in (1, 3):
            folder.mkdir(parents=True, exist_ok=True)
            raise KeyboardInterrupt
        return one_case(words, folder, files, limit)

    monkeypatch.setattr(under_test, "one_case", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            efficiency(command, images, out, references=references)
    with pytest.raises(UserError, match="must be new or empty, or of the same command"):
        efficiency(command + " --other", images, out, references=references)
    found = efficiency(command, images, out, references=references)
    good, half = "good_0000.nii.gz", "half_0000.nii.gz"
    assert called == [good, good, half, half] and [*found.cases] == ["good", "half"]
    assert found.cases["good"]["dice"] == 1.0 and not found.problems
    with pytest.raises(UserError, match="must be new or empty"):  # it is whole
        efficiency(command, images, out, references=references)


def test_a_case_without_any_class_has_no_dice_and_does_not_spoil_the_mean(setting, tmp_path):
    command, images, references = setting
    for folder, name in ((images, "none_0000"), (references, "none")):
        empty = sitk.GetImageFromArray(np.zeros((6, 8, 8), np.uint8))
        sitk.WriteImage(empty, str(folder / f"{name}.nii.gz"))
    found = efficiency(command, images, tmp_path / "out", references=references)
    assert found.cases["none"]["dice"] is None and found.cases["none"]["nsd"] is None
    assert found.means["dice"] == pytest.approx((1 + 2 / 3) / 2)
    row = (tmp_path / "out" / "efficiency.csv").read_text().splitlines()[3]
    assert row.startswith("none,") and row.endswith(",,")
    written = json.loads((tmp_path / "out" / "efficiency.json").read_text())
    assert written["cases"]["none"]["nsd"] is None


def test_costs_are_kept_where_segmentations_cannot_be_measured(setting, tmp_path, capsys):
    command, images, references = setting
    other = sitk.GetImageFromArray(np.ones((5, 8, 8), np.uint8))
    sitk.WriteImage(other, str(images / "half_0000.nii.gz"))
    words = ["efficiency", "-i", str(images), "-o", str(tmp_path / "out"), "--command", command]
    assert main([*words, "-r", str(references)]) == 1
    assert "half.nii.gz" in capsys.readouterr().out
    table = (tmp_path / "out" / "efficiency.csv").read_text().splitlines()
    assert len(table) == 3 and float(table[1].split(",")[1]) > 0


def test_a_case_that_was_sampled_too_rarely_is_a_problem():
    cost = Cost(9.0, 1.0, 1.0, 1.0, None, None, 3.0, 0)
    found = problem_of("case", cost, True, None)
    assert found is not None and "not sampled for 3.0 s" in found.what
    assert Measured(Path(), {}, ()).means == {}
