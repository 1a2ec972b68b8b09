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
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.workflows.follow import FollowOptions, check_follow_options
from semi_nnunet.workflows.recipe import load_recipe
from semi_nnunet.workflows.recipe_files import STAGES
from tests.datasets.converting import read
from tests.runs.tiny import trainings_with, wait_for
from tests.runs.tiny_recipe import RECIPE

FOLLOW = ["run", "recipe.json", "files", "--converted", "511", "--split", "611", "--device", "cpu"]


@pytest.mark.slow
def test_from_files_to_report_and_again(
    recipe_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(FOLLOW) == 0
    out = capfd.readouterr().out
    assert "SemiMeanTeacherTrainer 2d fold all seed 0 done" in out
    assert "Somebody's: Dice 0.75 (Table 1)" in out
    assert "SemiMeanTeacherTrainer" in (recipe_folder / "recipe.html").read_text()
    models = {path.name for path in (recipe_folder / "results").glob("Dataset611_*/*__*")}
    assert models == {f"{name}__nnUNetPlans_recipe__2d" for name in RECIPE["trainers"]}
    small = read_json(
        next((recipe_folder / "preprocessed").glob("Dataset611_*/nnUNetPlans_recipe.json"))
    )
    assert small["configurations"]["2d"]["spacing"][0] > 1
    predicted = next((recipe_folder / "results").rglob("test/*.png"))
    assert read(predicted).shape == (144, 144)
    checkpoints = list((recipe_folder / "results").rglob("checkpoint_final.pth"))
    earlier = [path.stat().st_mtime_ns for path in checkpoints]
    assert main(FOLLOW) == 0  # nothing is done twice
    out = capfd.readouterr().out
    assert out.count("it exists:") == 2 and "2 jobs, 2 done before" in out
    assert [path.stat().st_mtime_ns for path in checkpoints] == earlier


def test_a_dry_run_prints_commands_and_touches_nothing(
    recipe_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = sorted(recipe_folder.rglob("*"))
    assert main([*FOLLOW, "--dry-run", "--from", "plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    typed = [line.split()[1] for line in lines if line and not line.startswith("#")]
    assert typed == ["plan", "preprocess", "crossval", "compare", "report"]
    (crossval,) = (line for line in lines if " crossval " in line)
    assert crossval.endswith("--stages train predict evaluate")
    assert main([*FOLLOW, "--dry-run", "--from", "predict"]) == 0
    assert "--stages predict evaluate\n" in capsys.readouterr().out
    assert main([*FOLLOW, "--dry-run", "--only", "predict"]) == 0
    assert "--stages predict\n" in capsys.readouterr().out
    assert sorted(recipe_folder.rglob("*")) == earlier


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "recipe.json", "--converted", "1", "--split", "2"], "SRC: is missing"),
        (["run", "recipe.json", "files", "--converted", "1"], "add --split NEW_ID"),
        (
            ["run", "recipe.json", "files", "--converted", "1", "--split", "1"],
            "a number of its own",
        ),
        (["run", "absent.json", "files", "--converted", "1", "--split", "2"], "absent.json"),
        ([*FOLLOW, "--dry-run", "--jobs", "0"], "--jobs: must be 1 or more, got 0"),
        ([*FOLLOW, "--dry-run", "-np", "0"], "-np: must be 1 or more, got 0"),
        (["run", "recipe.json", "files", "--converted", "1", "--split", "-3"], "1 to 999, got -3"),
        (
            ["run", "recipe.json", "files", "--converted", "1000", "--split", "2"],
            "1 to 999, got 1000",
        ),
        ([*FOLLOW, "--dry-run", "-o", "nowhere/r.html"], "-o: must be a file in a"),
        ([*FOLLOW, "--dry-run", "-o", "files"], "-o: must be a file in a"),
    ],
)
def test_missing_and_wrong_options_are_named(
    recipe_folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_device_that_does_not_exist_is_refused(
    recipe_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "recipe.json", "files", "--converted", "511", "--split", "611", "--dry-run"]
    assert main([*words, "--device", "gpu"]) == 2
    assert "gpu" in capsys.readouterr().err


def test_a_stage_that_fails_ends_the_run_by_name(
    recipe_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    next((recipe_folder / "files/masks").iterdir()).unlink()
    (recipe_folder / "recipe.json").write_text(json.dumps(RECIPE | {"options": {}}))
    assert main(FOLLOW) == 2
    out, err = capfd.readouterr()
    assert "1 of 8: convert failed" in err and "split" not in out


@pytest.mark.slow
def test_sigterm_ends_the_stage_too(recipe_folder: Path) -> None:
    recipe = RECIPE | {"settings": {"epochs": 1000, "SemiMeanTeacherTrainer.epochs": 1000}}
    (recipe_folder / "recipe.json").write_text(json.dumps(recipe))
    for stage in ("convert", "split", "preprocess", "plan"):
        assert main([*FOLLOW, "--only", stage]) == 0
    command = [sys.executable, "-m", "semi_nnunet.cli.main", *FOLLOW, "--from", "train"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: trainings_with(str(recipe_folder)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        assert not trainings_with(str(recipe_folder))
    finally:
        process.kill()


def test_stages_start_at_the_requested_one_or_are_only_one():
    options = FollowOptions(converted=1)
    assert options.selected_stages == STAGES
    assert replace(options, first="plan").selected_stages == STAGES[STAGES.index("plan") :]
    assert replace(options, first="plan", only="report").selected_stages == ("report",)


def test_all_wrong_options_are_reported_at_once(recipe_folder: Path) -> None:
    path = recipe_folder / "recipe.json"
    recipe = load_recipe(path)
    options = FollowOptions(converted=0, jobs=0, report=recipe_folder / "gone" / "r.html")
    with pytest.raises(UserError) as caught:
        check_follow_options(path, recipe, options)
    assert [problem.where for problem in caught.value.problems] == [
        "--converted", "--jobs", "-o", "--split", "SRC",
    ]  # fmt: skip
    whole = replace(recipe, labelled=None)
    with pytest.raises(UserError, match=r"hides no labels.*leave it out"):
        check_follow_options(path, whole, FollowOptions(source=recipe_folder, converted=1, split=2))


def test_data_sets_of_pseudo_labels_need_numbers_of_their_own(recipe_folder: Path) -> None:
    write = Path("recipe.json").write_text
    rounds = {"trainer": "SemiBaselineTrainer", "target": "SemiBaselineTrainer", "rounds": 2}
    write(json.dumps(RECIPE | {"pseudo_labels": rounds}))
    path = Path("recipe.json")
    options = FollowOptions(source=recipe_folder, converted=511, split=611)
    recipe = load_recipe(path)
    assert check_follow_options(path, recipe, replace(options, distilled=711)).distilled == 711
    for number in (None, 510, 610, 999, 0):
        with pytest.raises(UserError, match="--pseudo-labelled: "):
            check_follow_options(path, recipe, replace(options, distilled=number))
    write(json.dumps(RECIPE))
    with pytest.raises(UserError, match="--pseudo-labelled: the recipe has no pseudo labels"):
        check_follow_options(path, load_recipe(path), replace(options, distilled=711))


def test_the_options_are_completed_from_the_recipe(recipe_folder: Path) -> None:
    path = recipe_folder / "recipe.json"
    recipe = load_recipe(path)
    options = FollowOptions(source=recipe_folder, converted=7, split=8, jobs=3)
    checked = check_follow_options(path, recipe, options)
    assert checked == replace(options, report=recipe_folder / "recipe.html") and checked.used == "8"
    later = check_follow_options(path, recipe, replace(options, first="split"))
    assert later.source is None  # nothing is converted any more
    whole = replace(recipe, labelled=None)
    assert check_follow_options(path, whole, replace(options, split=None)).used == "7"
