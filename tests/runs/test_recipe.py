"""Every recipe in plans/ can be followed; mistakes in a recipe are explained."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.datasets.converters import CONVERTERS
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.verb_commands import build_command
from semi_nnunet.workflows.recipe import LabelledSubset, load_recipe
from tests.runs.parsing import parse_command

PLANS = sorted((Path(__file__).resolve().parents[2] / "plans").glob("*.json"))
PUBLISHED_NUMBERS = {
    "acdc": {6, 14, 28},
    "la2018": {4, 8, 16},
    "mmwhs": {16},
    "mnms": {8, 10, 12, 22, 26, 30},
    "retouch": {430},
    "synapse": {4},
}
GOOD: dict[str, Any] = {
    "title": "LA, 4 of 80 labelled",
    "converter": "mmwhs",
    "options": {"target": "mr"},
    "labelled": {"number": 4, "seed": 1},
    "configurations": ["2d"],
    "trainers": ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"],
    "settings": {"SemiMeanTeacherTrainer.ema_decay": 0.99, "2d.epochs": 3, "mirror": False},
    "published": [{"method": "UA-MT", "metric": "Dice", "value": 0.8226, "source": "Table 2"}],
    "comparable": "not at all",
}
ROUNDS = {"trainer": "SemiMeanTeacherTrainer", "target": "SemiBaselineTrainer", "rounds": 3}
KVASIR, RETOUCH = {"converter": "kvasir"}, {"converter": "retouch"}


def write(folder: Path, content: Any) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert "SemiBaselineTrainer" in recipe.trainers
    assert len(recipe.comparable) > 100
    if recipe.labelled and recipe.labelled.published:
        assert recipe.labelled.number in PUBLISHED_NUMBERS[recipe.converter]
    for number in recipe.published:
        assert number.metric in ("Dice", "IoU", "NSD") and 0 < number.value < 1


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_options_of_every_recipe_can_be_given_to_its_converter(path: Path) -> None:
    recipe = load_recipe(path)
    command = build_command("convert", recipe.converter, "SRC", new_id=1, **recipe.options)
    parsed = vars(parse_command(command))
    assert {name: parsed[name] for name in recipe.options} == recipe.options


def test_every_converter_has_a_recipe_and_every_published_list_one() -> None:
    recipes = [load_recipe(path) for path in PLANS]
    assert {recipe.converter for recipe in recipes} == set(CONVERTERS)
    for name, numbers in PUBLISHED_NUMBERS.items():
        numbers_found = {r.labelled.number for r in recipes if r.converter == name and r.labelled}
        assert numbers_found == numbers


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_converter_says_which_files_it_expects(name: str) -> None:
    text = importlib.import_module(f"semi_nnunet.datasets.{name}").__doc__ or ""
    assert "    SRC/" in text


def test_a_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.labelled == LabelledSubset(number=4, published=False, seed=1)
    assert recipe.published[0].value == 0.8226
    assert recipe.folds == ("all",) and recipe.seeds == 3 and recipe.budget is None
    assert load_recipe(write(tmp_path, GOOD | {"labelled": None, "budget": "0.5"})).labelled is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": []}, "did you mean 'trainers'"),
        ({"title": ""}, "title: must match pattern"),
        ({"seeds": "3"}, "seeds: must be"),
        ({"seeds": 0}, "seeds: must be greater than or equal to 1"),
        ({"labelled": {"numbre": 4}}, "did you mean 'number'"),
        ({"labelled": {"number": 0}}, "labelled.number: must be greater than or equal to 1"),
        ({"published": [{"method": "A"}]}, "published[0].source: is missing"),
        ({"converter": "mmwsh"}, "did you mean 'mmwhs'"),
        ({"options": {}}, "options.target: is missing"),
        ({"options": {"target": "mr", "sed": 1}}, "did you mean 'seed'"),
        ({"trainers": ["SemiMeanTeacher"]}, "did you mean 'SemiMeanTeacherTrainer'"),
        ({"configurations": ["3d_fulres"]}, "did you mean '3d_fullres'"),
        ({"options": {"target": None}}, "options.target: is missing"),
        ({"options": {"target": "xx"}}, "options.target: must be 'ct' or 'mr', got 'xx'"),
        ({"options": {"target": "mr", "seed": -1}}, "options.seed: must be >= 0, got -1"),
        (KVASIR | {"options": {"size": "big"}}, "options.size: must be a valid integer, got 'big'"),
        (KVASIR | {"options": {"size": "9²"}}, "options.size: must be a valid integer, got '9²'"),
        (KVASIR | {"options": {"size": False}}, "options.size: must be a valid integer"),
        (
            KVASIR | {"options": {"incomplete": "yes"}},
            "options.incomplete: must be a valid boolean",
        ),
        (RETOUCH | {"options": {"size": None}}, "options.size: must be a valid integer"),
        (
            {"labelled": {"number": 4, "published": True}},
            "of 16 cases, got 4",
        ),
        (
            {"converter": "la2018", "options": {}, "labelled": {"number": 5, "published": True}},
            "la2018 has lists of 4 or 8 or 16 cases, got 5",
        ),
        (
            KVASIR | {"options": {}, "labelled": {"number": 4, "published": True}},
            "no list, got",
        ),
        (
            {"pseudo_labels": {"trainer": "SemiCPSTrainer", "target": "SemiBaselineTrainer"}},
            "pseudo_labels 'SemiCPSTrainer': is not one",
        ),
        (
            {"pseudo_labels": {"trainer": "SemiBaselineTrainer", "target": "SemiCPTrainer"}},
            "did you mean 'SemiCPSTrainer'",
        ),
        (
            {"pseudo_labels": ROUNDS | {"score": "entropie", "keep": [0.5, 0.6]}},
            "did you mean 'entropy'",
        ),
        ({"pseudo_labels": ROUNDS | {"keep": [0.5, 0.6]}}, "each of 3 rounds, got"),
        (
            {"pseudo_labels": ROUNDS | {"rounds": 0}},
            "pseudo_labels.rounds: must be greater than or equal",
        ),
        ({"pseudo_labels": ROUNDS | {"round": 2}}, "did you mean 'rounds'"),
        ({"pseudo_labels": {"target": "SemiCPSTrainer"}}, "pseudo_labels.trainer: is missing"),
        ({"distil": {}}, "trainer of distil 'none': is not one of the recipe's trainers"),
        ({"distil": {"share": 2}}, "distil.share: must be less than or equal to 1, got 2"),
        (
            {"pseudo_labels": ROUNDS, "distil": {"trainer": "SemiBaselineTrainer"}},
            "distil.trainer: is the target of the pseudo labels, SemiBaselineTrainer",
        ),
        ({"folds": ["five"]}, "fold 'five': there are 4 folds of 4 labelled cases"),
        ({"folds": ["4"]}, "fold '4': there are 4 folds of 4 labelled cases"),
        (
            {"folds": ["0", "1"], "configurations": ["3d_lowres", "3d_cascade_fullres"]},
            "needs the predictions of every fold, or only of 'all', got 0, 1",
        ),
        ({"configurations": ["3d_cascade_fullres"]}, "add '3d_lowres' to the configurations"),
        ({"patch": [8, 64, 64]}, "patch: must have 2 numbers for 2d, got [8, 64, 64]"),
        ({"configurations": ["3d_fullres"], "patch": [64, 64]}, "must have 3 numbers"),
        ({"published": [3]}, "published[0]: must be an object, got 3"),
        (
            {"published": [GOOD["published"][0] | {"value": float("nan")}]},
            "published[0].value: must be a finite numb",
        ),
        ({"budget": "0"}, "must be null, 'cpu' or seconds per step above 0, got '0'"),
        ({"budget": "gpu"}, "must be null, 'cpu' or seconds"),
        ({"patch": 80}, "patch: must be a valid array"),
        ({"patch": [80, 0]}, "patch[1]: must be greater than or equal to 1"),
        ({"settings": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"settings": {"epochs": 0}}, "must be in [1, inf), got 0"),
        ({"settings": {"SemiCPSTrainer.deploy": "first"}}, "trainer of settings 'SemiCPSTrainer'"),
        (
            {"settings": {"SemiCPSTrainer.deploy": "first"}},
            "is not one of the recipe's trainers. Fix: add it to them",
        ),
        (
            {"settings": {"SemiMenTeacherTrainer.deploy": "first"}},
            "is not one of the recipe's trainers. Fix: did you mean 'SemiMeanTeacherTrainer'",
        ),
        ({"settings": {"seed": 1, "seed.x": 2}}, "'seed'"),
        (
            {
                "trainers": ["SemiMeanTeacherTrainer", "nnUNetTrainer"],
                "settings": {"nnUNetTrainer.epochs": 3},
            },
            "trainer of settings 'nnUNetTrainer': is not one of the recipe's trainers",
        ),
    ],
)
def test_every_mistake_in_a_recipe_is_named_with_the_fix(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        load_recipe(write(tmp_path, GOOD | changes))
    assert message in str(error.value) and "choose from \n" not in f"{error.value}\n"


def test_the_earlier_name_of_the_small_network_is_read(tmp_path: Path) -> None:
    small = {"share": 0.25, "trainer": "SemiMeanTeacherTrainer"}
    recipes = [load_recipe(write(tmp_path, {**GOOD, key: small})) for key in ("slim", "distil")]
    assert recipes[0] == recipes[1] and recipes[0].distil


def test_null_is_the_default_of_an_option(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD | KVASIR | {"options": {"size": None, "seed": 3}}))
    words = build_command("convert", "kvasir", "SRC", new_id=1, **recipe.options)
    assert words[-2:] == ("--seed", "3") and "--size" not in words


def test_trainers_may_be_nnu_nets_own(tmp_path: Path) -> None:
    trainers = ["SemiBaselineTrainer", "SemiMeanTeacherTrainer", "nnUNetTrainer"]
    assert load_recipe(write(tmp_path, GOOD | {"trainers": trainers})).trainers == tuple(trainers)


@pytest.mark.parametrize(
    ("configurations", "patch"), [(["2d", "3d_fullres"], [64, 64]), (["3d_fullres"], [8, 64, 64])]
)
def test_a_patch_suits_some_configuration(
    tmp_path: Path, configurations: list[str], patch: list[int]
) -> None:
    changes = {"configurations": configurations, "patch": patch, "settings": {}}
    assert load_recipe(write(tmp_path, GOOD | changes)).patch == tuple(patch)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD) | {"trainers": ["Nobody"], "folds": ["x"], "converter": "acd"}
    with pytest.raises(UserError) as error:
        load_recipe(write(tmp_path, content))
    assert len(error.value.problems) >= 3
    options = {"size": "big", "seed": -1, "incomplete": 1}
    with pytest.raises(UserError) as error:
        load_recipe(write(tmp_path, GOOD | KVASIR | {"options": options}))
    assert [problem.where for problem in error.value.problems] == [
        f"options.{name}" for name in options
    ]


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an object"):
        load_recipe(write(tmp_path, [GOOD]))
    del (content := copy.deepcopy(GOOD))["trainers"]
    with pytest.raises(UserError, match="trainers: is missing"):
        load_recipe(write(tmp_path, content))
