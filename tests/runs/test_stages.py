"""A recipe is followed from the downloaded files to the report; each stage is a command of ours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.cli.main import build_parser, main
from semi_nnunet.planning.plan import parse_assignments
from semi_nnunet.runs.recipe import load_recipe
from semi_nnunet.runs.stages import STAGES, Place, commands, plans_of_recipe
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from tests.datasets.converting import read, write_picture
from tests.runs.tiny import trainings_with, wait_for

PLANS = sorted((Path(__file__).resolve().parents[2] / "plans").glob("*.json"))
PLACE = Place(Path("SRC"), "501", "601", "nnUNetPlans_mine", Path("report.html"), processes=2)
RECIPE = {
    "title": "Polyps that nobody saw",
    "converter": "kvasir",
    "options": {"incomplete": True},
    "labelled": {"number": 3, "seed": 0},
    "configurations": ["2d"],
    "trainers": ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"],
    "settings": {
        **{"epochs": 2, "steps_per_epoch": 1, "validation_steps_per_epoch": 1},
        **{"save_every_epochs": 1, "mirror": False, "SemiMeanTeacherTrainer.ramp_up": "constant"},
    },
    "budget": "cpu",
    "seeds": 1,
    "published": [{"method": "Somebody's", "metric": "Dice", "value": 0.75, "source": "Table 1"}],
    "comparable": "not at all",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe, the pictures it asks for, and nnU-Net's folders."""
    rng = np.random.default_rng(0)
    for i in range(10):
        mask = np.zeros((144, 144, 3), np.uint8)  # 96 x 96 show too little
        mask[30:110, 50 : 90 + 5 * i] = 255
        picture = np.clip(rng.normal(100, 30, mask.shape) + mask / 4, 0, 255).astype(np.uint8)
        write_picture(tmp_path / f"files/images/cju{i:02d}.jpg", picture, quality=90)
        write_picture(tmp_path / f"files/masks/cju{i:02d}.jpg", mask, quality=60)
    (tmp_path / "files/kavsir_bboxes.json").write_text("{}")
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FOLLOW = ["run", "recipe.json", "files", "-d", "511", "-o", "611", "--device", "cpu"]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_stage_of_every_recipe_is_a_command_of_ours(path: Path) -> None:
    recipe = load_recipe(path)
    found = commands(recipe, PLACE)
    assert [stage for stage in STAGES if stage in found] == list(found)
    assert ("split" in found) == (recipe.labelled is not None)
    parsed = {}
    for words in (words for several in found.values() for words in several):
        program, name, *_ = words
        assert program == "semi_nnunet"
        parsed.setdefault(name, []).append(
            build_parser(name).parse_args([str(word) for word in words[1:]])
        )
    assert set(parsed) - {"crossval"} == set(found) - {"train", "predict", "evaluate"}
    assert parsed["plan"][0].reset  # of what somebody gave before
    assert parsed["plan"][0].name == parsed["compare"][0].plans == PLACE.plans
    given = parse_assignments(parsed["plan"][0].assignments)
    assert given == parse_assignments([f"{k}={json.dumps(v)}" for k, v in recipe.settings.items()])
    assert [one.steps for one in parsed["crossval"]] == [["train"], ["predict"], ["evaluate"]]
    for one in parsed["crossval"]:
        assert tuple(one.trainers) == recipe.trainers and one.seeds == recipe.seeds


def test_plans_of_a_budget_are_used_everywhere(place: Path) -> None:
    recipe = load_recipe("recipe.json")
    found = commands(replace(recipe, budget="0.5"), PLACE)
    for stage in ("train", "predict", "evaluate", "compare", "report"):
        assert PLACE.plans in found[stage][0]
    before, after = found["preprocess"][0], found["plan"][1]
    assert after == (*before, "-p", PLACE.plans)


def test_a_patch_is_of_the_plans_that_are_used_everywhere(place: Path) -> None:
    recipe = replace(load_recipe("recipe.json"), budget=None, patch=(48, 64))
    found = commands(recipe, PLACE)
    (planned,) = found["plan"]
    assert planned[planned.index("--patch") + 1 :][:2] == ("48", "64")
    for stage in ("train", "predict", "evaluate", "compare", "report"):
        assert PLACE.plans in found[stage][0]


def test_recipes_of_one_data_set_have_plans_of_their_own() -> None:
    names = [plans_of_recipe(path) for path in PLANS]
    assert len(set(names)) == len(names) and "nnUNetPlans_flare22_uif200" in names
    for name in (
        "my recipe",
        "\N{CYRILLIC SMALL LETTER TE}",
        "la__4",
        "la_4_",
        "la_4_seed1",
        "la.2",
    ):
        with pytest.raises(UserError, match="Fix: rename the file"):
            plans_of_recipe(Path(f"{name}.json"))


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
