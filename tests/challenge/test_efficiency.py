"""A submission is called for each case, and its cost and quality are recorded."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semi_nnunet.challenge import efficiency as under_test
from semi_nnunet.challenge.efficiency import EfficiencyResult, find_case_problem, measure_efficiency
from semi_nnunet.challenge.sampling import ProgramCost
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


def test_pictures_have_their_quality_in_pixels(setting, tmp_path):
    command, images, references = setting
    for path in [*images.iterdir(), *references.iterdir()]:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[2]
        Image.fromarray(array).save(path.with_name(path.name.replace(".nii.gz", ".png")))
    description = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**description, "file_ending": ".png"}))
    out = tmp_path / "out"
    result = measure_efficiency(command, images, out, references=references, ending=".png")
    assert [(row["dice"], row["nsd"]) for row in result.cases.values()] == [(1.0, 1.0)] * 2


def test_each_case_has_its_cost_and_quality(setting, tmp_path, capsys):
    command, images, references = setting
    add(images, "silent")
    shutil.copy(references / "good.nii.gz", references / "silent.nii.gz")
    result = measure_efficiency(command, images, tmp_path / "out", references=references)
    rows = result.cases
    assert list(rows) == ["good", "half", "silent"]
    lines = [line for line in capsys.readouterr().out.splitlines() if " of 3 " in line]
    assert len(lines) == 3
    assert rows["good"]["dice"] == 1.0 and rows["good"]["nsd"] == 1.0
    assert rows["half"]["dice"] == pytest.approx(2 * 2 / (2 + 4))
    assert rows["silent"]["dice"] == rows["silent"]["nsd"] == 0.0
    assert [problem.where for problem in result.problems] == ["silent"]
    assert all(row["seconds"] > 0 and row["memory"] > 0 for row in rows.values())
    assert result.means["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    table = (tmp_path / "out" / "efficiency.csv").read_text().replace('"', "").split()
    assert table[0] == "case,seconds,cpu_area,memory,own_memory,gpu_area,gpu_memory,dice,nsd"
    assert len(table) == 4
    assert json.loads((tmp_path / "out" / "efficiency.json").read_text())["cases"] == rows
    assert "segments good_0000.nii.gz" in (tmp_path / "out" / "log.txt").read_text()


def test_another_user_can_read_the_case_and_write_its_segmentation(setting, tmp_path):
    _, images, _ = setting
    script = tmp_path / "modes.py"
    modes = tmp_path / "modes.txt"
    script.write_text(
        "import os, sys\n"
        "folders = [os.path.dirname(sys.argv[1]), *sys.argv[1:3]]\n"
        "files = [os.path.join(sys.argv[1], name) for name in os.listdir(sys.argv[1])]\n"
        f"open({str(modes)!r}, 'a').write(' '.join(oct(os.stat(p).st_mode)[-3:] "
        "for p in [*folders, *files]) + '\\n')\n"
    )
    before = os.umask(0o077)
    try:
        words = f"{sys.executable} '{script}' {{inputs}} {{outputs}}"
        measure_efficiency(words, images, tmp_path / "out")
    finally:
        os.umask(before)
    assert set(modes.read_text().splitlines()) == {"755 755 777 644"}


def test_cases_that_fail_or_take_too_long_are_reported_and_others_are_measured(
    setting, tmp_path, capsys
):
    command, images, _ = setting
    add(images, "fails")
    add(images, "slow")
    words = ["efficiency", "-i", str(images), "-o", str(tmp_path / "out"), "--command", command]
    assert main([*words, "--limit", "20"]) == 1
    output = capsys.readouterr().out
    assert "fails: ended with status 4" in output
    assert "slow: took longer than 20 s" in output
    assert "mean of 4 cases" in output
    names = {path.name for path in (tmp_path / "out" / "outputs").iterdir()}
    assert names == {"good.nii.gz", "half.nii.gz"}


def test_a_worthless_measurement_is_refused_before_it_begins(setting, tmp_path, monkeypatch):
    command, images, _ = setting
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError) as error:
        measure_efficiency("nonsense_program {inputs}", tmp_path / "full", tmp_path / "full")
    message = str(error.value)
    for keyword in (
        "{outputs}",
        "nonsense_program:",
        "images CASE_0000",
        "new or empty",
    ):
        assert keyword in message
    monkeypatch.setattr(under_test.psutil, "cpu_percent", lambda interval: 80.0)
    with pytest.raises(UserError, match="got 80 %"):
        measure_efficiency(command, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_mistakes_are_reported_together_before_hours_of_work(setting, tmp_path):
    command, images, references = setting
    (tmp_path / "file").touch()
    (references / "half.nii.gz").unlink()
    with pytest.raises(UserError) as error:
        measure_efficiency(
            f"{command} 'open", images, tmp_path / "file", references=references, limit=-4,
            class_tolerances=["organ"],
        )  # fmt: skip
    message = str(error.value)
    for keyword in (
        "no closing quotation", "file: ", "got -4", "CLASS=MM, got 'organ'", "half: ",
    ):  # fmt: skip
        assert keyword in message
    with pytest.raises(UserError, match=r"good: .* label"):
        measure_efficiency(command, images, tmp_path / "out", references=tmp_path / "nowhere")
    (images / "half_0000.nii.gz").unlink()
    for tolerances in (["liver=2"], {"liver": 2.0}):
        with pytest.raises(UserError, match="organ; got liver"):
            measure_efficiency(
                command, images, tmp_path / "out", references=references,
                class_tolerances=tolerances,
            )  # fmt: skip
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json"):
        measure_efficiency(command, images, tmp_path / "out", references=references)
    assert not (tmp_path / "out").exists()


def test_the_same_command_continues_after_an_interruption(setting, tmp_path, monkeypatch):
    command, images, references = setting
    out, called, one_case = tmp_path / "out", list[str](), under_test.measure_case
    good, half = "good_0000.nii.gz", "half_0000.nii.gz"

    def interrupted(words, folder, files, limit):
        called.append(Path(files[0]).name)
        if len(called) in (1, 3):
            folder.mkdir(parents=True, exist_ok=True)
            raise KeyboardInterrupt
        return one_case(words, folder, files, limit)

    monkeypatch.setattr(under_test, "measure_case", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure_efficiency(command, images, out, references=references)
    with pytest.raises(UserError, match="new or empty"):
        measure_efficiency(command + " --other", images, out, references=references)
    content = Path(images, half).read_bytes()
    Path(images, half).write_bytes(Path(images, good).read_bytes())
    with pytest.raises(UserError, match="new or empty"):  # the mean would be of other images, too
        measure_efficiency(command, images, out, references=references)
    Path(images, half).write_bytes(content)
    with pytest.raises(UserError, match="new or empty"):  # cases that took longer are failed
        measure_efficiency(command, images, out, references=references, limit=60)
    result = measure_efficiency(command, images, out, references=references)
    assert called == [good, good, half, half] and [*result.cases] == ["good", "half"]
    assert result.cases["good"]["dice"] == 1.0 and not result.problems
    with pytest.raises(UserError, match="new or empty"):  # it is finished
        measure_efficiency(command, images, out, references=references)


def test_a_failed_case_is_measured_again(setting, tmp_path, monkeypatch):
    command, images, _ = setting
    out, called, one_case = tmp_path / "out", list[str](), under_test.measure_case

    def measured(words, folder, files, limit):
        called.append(Path(files[0]).name)
        if len(called) == 2:
            raise KeyboardInterrupt
        cost, written = one_case(words, folder, files, limit)
        return replace(cost, exit_code=3 if len(called) == 1 else cost.exit_code), written

    monkeypatch.setattr(under_test, "measure_case", measured)
    with pytest.raises(KeyboardInterrupt):
        measure_efficiency(command, images, out)
    result = measure_efficiency(command, images, out)
    assert called == [f"{name}_0000.nii.gz" for name in ("good", "half", "good", "half")]
    assert not result.problems and [*result.cases] == ["good", "half"]


def test_a_case_without_any_class_has_no_dice_and_does_not_spoil_the_mean(setting, tmp_path):
    command, images, references = setting
    for folder, name in ((images, "none_0000"), (references, "none")):
        empty = sitk.GetImageFromArray(np.zeros((6, 8, 8), np.uint8))
        sitk.WriteImage(empty, str(folder / f"{name}.nii.gz"))
    result = measure_efficiency(command, images, tmp_path / "out", references=references)
    assert result.cases["none"]["dice"] is None and result.cases["none"]["nsd"] is None
    assert result.means["dice"] == pytest.approx((1 + 2 / 3) / 2)
    row = (tmp_path / "out" / "efficiency.csv").read_text().splitlines()[3]
    assert row.startswith("none,") and row.endswith(",,")
    written = json.loads((tmp_path / "out" / "efficiency.json").read_text())
    assert written["cases"]["none"]["nsd"] is None


def test_costs_are_kept_if_segmentations_cannot_be_measured(setting, tmp_path, capsys):
    command, images, references = setting
    other = sitk.GetImageFromArray(np.ones((5, 8, 8), np.uint8))
    sitk.WriteImage(other, str(images / "half_0000.nii.gz"))
    words = ["efficiency", "-i", str(images), "-o", str(tmp_path / "out"), "--command", command]
    assert main([*words, "-r", str(references)]) == 1
    assert "half.nii.gz" in capsys.readouterr().out
    table = (tmp_path / "out" / "efficiency.csv").read_text().split()
    assert len(table) == 3 and float(table[1].split(",")[1]) > 0


def test_a_case_that_was_sampled_too_rarely_is_a_problem():
    cost = ProgramCost(9.0, 1.0, 1.0, 1.0, None, None, 3.0, 0)
    problem = find_case_problem("case", cost, True, None)
    assert problem is not None and "not sampled for 3.0 s" in problem.what
    assert EfficiencyResult(Path(), {}, ()).means == {}
