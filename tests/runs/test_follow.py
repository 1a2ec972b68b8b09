"""A recipe is followed from the downloaded files to the report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.runs.follow import Following, place_of
from semi_nnunet.runs.recipe import load_recipe
from semi_nnunet.runs.recipe_files import STAGES
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from tests.datasets.converting import read
from tests.runs.tiny import trainings_with, wait_for
from tests.runs.tiny_recipe import RECIPE

FOLLOW = ["run", "recipe.json", "files", "-d", "511", "-o", "611", "--device", "cpu"]


@pytest.mark.slow
def test_from_files_to_report_and_again(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(FOLLOW) == 0
    out = capfd.readouterr().out
    assert "SemiMeanTeacherTrainer 2d fold all seed 0 done" in out
    assert "Somebody's: Dice 0.75 (Table 1)" in out
    assert "SemiMeanTeacherTrainer" in (place / "recipe.html").read_text()
    models = {path.name for path in (place / "results").glob("Dataset611_*/*__*")}
    assert models == {f"{name}__nnUNetPlans_recipe__2d" for name in RECIPE["trainers"]}
    small = read_json(next((place / "preprocessed").glob("Dataset611_*/nnUNetPlans_recipe.json")))
    assert small["configurations"]["2d"]["spacing"][0] > 1
    predicted = next((place / "results").rglob("test/*.png"))
    assert read(predicted).shape == (144, 144)
    checkpoints = list((place / "results").rglob("checkpoint_final.pth"))
    before = [path.stat().st_mtime_ns for path in checkpoints]
    assert main(FOLLOW) == 0  # nothing is done twice
    out = capfd.readouterr().out
    assert out.count("there is nothing to do") == 2 and "2 jobs, 2 done before" in out
    assert [path.stat().st_mtime_ns for path in checkpoints] == before


def test_a_dry_run_prints_commands_and_touches_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert main([*FOLLOW, "--dry-run", "--from", "plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    typed = [line.split()[1] for line in lines if line and not line.startswith("#")]
    assert typed == ["plan", "preprocess", "crossval", "compare", "report"]
    (crossval,) = (line for line in lines if " crossval " in line)
    assert crossval.endswith("--steps train predict evaluate")
    assert main([*FOLLOW, "--dry-run", "--from", "predict"]) == 0
    assert "--steps predict evaluate\n" in capsys.readouterr().out
    assert main([*FOLLOW, "--dry-run", "--only", "predict"]) == 0
    assert "--steps predict\n" in capsys.readouterr().out
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "recipe.json", "-d", "1", "-o", "2"], "SRC: is missing"),
        (["run", "recipe.json", "files", "-d", "1"], "add -o NEW_ID"),
        (["run", "recipe.json", "files", "-d", "1", "-o", "1"], "a number of its own"),
        (["run", "absent.json", "files", "-d", "1", "-o", "2"], "absent.json"),
        ([*FOLLOW, "--dry-run", "--jobs", "0"], "--jobs: must be 1 or more, got 0"),
        ([*FOLLOW, "--dry-run", "-np", "0"], "-np: must be 1 or more, got 0"),
        ([*FOLLOW, "--dry-run", "-o", "-3"], "-o: must be a number from 1 to 999, got -3"),
        ([*FOLLOW, "--dry-run", "-d", "1000"], "-d: must be a number from 1 to 999, got 1000"),
        ([*FOLLOW, "--dry-run", "--report", "nowhere/r.html"], "--report: must be a file in a"),
        ([*FOLLOW, "--dry-run", "--report", "files"], "--report: must be a file in a"),
    ],
)
def test_what_is_missing_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_a_device_that_does_not_exist_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*FOLLOW, "--dry-run", "--device", "gpu"])
    assert "invalid choice: 'gpu'" in capsys.readouterr().err


def test_a_stage_that_fails_ends_the_run_by_name(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    next((place / "files/masks").iterdir()).unlink()
    (place / "recipe.json").write_text(json.dumps(RECIPE | {"options": {}}))
    assert main(FOLLOW) == 2
    out, err = capfd.readouterr()
    assert "1 of 8: convert failed" in err and "split" not in out


@pytest.mark.slow
def test_sigterm_ends_the_stage_too(place: Path) -> None:
    recipe = RECIPE | {"settings": {"epochs": 1000, "SemiMeanTeacherTrainer.epochs": 1000}}
    (place / "recipe.json").write_text(json.dumps(recipe))
    for stage in ("convert", "split", "preprocess", "plan"):
        assert main([*FOLLOW, "--only", stage]) == 0
    command = [sys.executable, "-m", "semi_nnunet.cli.main", *FOLLOW, "--from", "train"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: trainings_with(str(place)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        assert not trainings_with(str(place))
    finally:
        process.kill()


def test_stages_are_followed_from_the_first_one_wanted_or_one_alone():
    how = Following(converted=1)
    assert how.wanted == STAGES
    assert replace(how, first="plan").wanted == STAGES[STAGES.index("plan") :]
    assert replace(how, first="plan", only="report").wanted == ("report",)


def test_all_that_is_missing_is_said_at_once(place: Path) -> None:
    path = place / "recipe.json"
    recipe = load_recipe(path)
    how = Following(converted=0, jobs=0, report=place / "gone" / "r.html")
    with pytest.raises(UserError) as caught:
        place_of(path, recipe, how)
    assert [problem.where for problem in caught.value.problems] == [
        "-d", "--jobs", "--report", "-o", "SRC",
    ]  # fmt: skip
    whole = replace(recipe, labelled=None)
    with pytest.raises(UserError, match=r"the recipe hides no labels.*leave it out"):
        place_of(path, whole, Following(source=place, converted=1, split=2))


def test_data_sets_of_pseudo_labels_need_numbers_of_their_own(place: Path) -> None:
    write = Path("recipe.json").write_text
    rounds = {"trainer": "SemiBaselineTrainer", "target": "SemiBaselineTrainer", "rounds": 2}
    write(json.dumps(RECIPE | {"pseudo_labels": rounds}))
    path, how = Path("recipe.json"), Following(source=place, converted=511, split=611)
    recipe = load_recipe(path)
    assert place_of(path, recipe, replace(how, distilled=711)).distilled == 711
    for number in (None, 510, 610, 999, 0):
        with pytest.raises(UserError, match="--distilled: "):
            place_of(path, recipe, replace(how, distilled=number))
    write(json.dumps(RECIPE))
    with pytest.raises(UserError, match="--distilled: the recipe has no pseudo labels"):
        place_of(path, load_recipe(path), replace(how, distilled=711))


def test_a_recipe_is_followed_in_the_data_sets_that_are_told(place: Path) -> None:
    path = place / "recipe.json"
    recipe = load_recipe(path)
    found = place_of(path, recipe, Following(source=place, converted=7, split=8, jobs=3))
    assert (found.source, found.converted, found.used, found.jobs) == (place, "7", "8", 3)
    assert found.report == place / "recipe.html" and found.plans == "nnUNetPlans_recipe"
    later = place_of(path, recipe, Following(converted=7, split=8, first="split"))
    assert later.source is None  # nothing is converted any more
    whole = place_of(path, replace(recipe, labelled=None), Following(source=place, converted=7))
    assert whole.converted == whole.used == "7"
