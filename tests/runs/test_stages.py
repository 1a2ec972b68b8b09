"""The stages of a recipe: each is a command of ours, with the plans of the recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.cli.main import build_parser
from semi_nnunet.runs.recipe import load_recipe
from semi_nnunet.runs.recipe_files import STAGES
from semi_nnunet.runs.stages import Place, commands, plans_of_recipe
from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.util.errors import UserError

PLANS = sorted((Path(__file__).resolve().parents[2] / "plans").glob("*.json"))
PLACE = Place(
    Path("SRC"), "501", "601", "nnUNetPlans_mine", Path("report.html"), processes=2, distilled=701
)


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
    assert parsed["plan"][0].name == parsed["report"][0].plans == PLACE.plans
    given = parse_assignments(parsed["plan"][0].assignments)
    assert given == parse_assignments([f"{k}={json.dumps(v)}" for k, v in recipe.settings.items()])
    assert ("compare" in found) == (len(recipe.trainers) > 1)  # with what, else?
    assert ("distil" in found) == (recipe.pseudo_labels is not None)
    assert ("slim" in found) == (recipe.slim is not None)
    assert [one.steps for one in parsed["crossval"]] == [["train"], ["predict"], ["evaluate"]]
    for one in parsed["crossval"]:
        assert tuple(one.trainers) == recipe.trainers and one.seeds == recipe.seeds


def test_pseudo_labels_and_a_small_network_are_made_of_the_models_before_them() -> None:
    recipe = load_recipe(next(path for path in PLANS if path.stem == "flare22_rounds"))
    found = commands(recipe, replace(PLACE, used="501", device="cpu"))
    (words,) = found["distil"]
    distil = build_parser("distil").parse_args([str(word) for word in words[1:]])
    model = "SemiBaselineTrainer__nnUNetPlans_mine__3d_fullres"
    assert (distil.dataset, distil.new_id, distil.base) == ("501", 701, [f"501/{model}"])
    assert (distil.rounds, distil.keep, distil.score) == (3, [1, 0.962, 0.962], "change")
    assert (distil.target, distil.target_plans) == ("SemiBaselineTrainer", PLACE.plans)
    assert distil.folds == ["all"] and distil.device == "cpu" and not distil.complete
    (words,) = found["slim"]
    slim = build_parser("slim").parse_args([str(word) for word in words[1:]])
    assert (slim.dataset, slim.model, slim.share) == ("501", f"703/{model}", 0.125)
    laptop = load_recipe(next(path for path in PLANS if path.stem == "flare24_laptop"))
    (words,) = commands(laptop, replace(PLACE, used="501"))["slim"]
    assert "501/SemiMeanTeacherTrainer__nnUNetPlans_mine__3d_fullres" in words


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
