"""The stages of a recipe: each is a command of ours, with the plans of the recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.util.errors import UserError
from semi_nnunet.workflows.follow import FollowOptions, build_stage_commands, name_recipe_plans
from semi_nnunet.workflows.recipe import load_recipe
from semi_nnunet.workflows.recipe_files import STAGES
from tests.runs.parsing import parse_command

RECIPES = sorted((Path(__file__).resolve().parents[2] / "plans").glob("*.json"))
PLANS = "nnUNetPlans_mine"
OPTIONS = FollowOptions(
    source=Path("SRC"), converted=501, split=601, report=Path("report.html"), distilled=701
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_stage_of_every_recipe_is_a_command_of_ours(path: Path) -> None:
    recipe = load_recipe(path)
    stages = build_stage_commands(recipe, OPTIONS, PLANS)
    assert [stage for stage in STAGES if stage in stages] == list(stages)
    assert ("split" in stages) == (recipe.labelled is not None)
    parsed = {}
    for words in (words for commands in stages.values() for words in commands):
        parsed.setdefault(words[1], []).append(parse_command(words))
    assert set(parsed) - {"crossval"} == set(stages) - {"train", "predict", "evaluate"}
    assert parsed["plan"][0].reset  # settings that were given earlier
    assert parsed["plan"][0].new_plans == parsed["report"][0].plans == PLANS
    settings = parse_assignments(parsed["plan"][0].settings)
    expected = [f"{key}={json.dumps(value)}" for key, value in recipe.settings.items()]
    assert settings == parse_assignments(expected)
    assert ("compare" in stages) == (len(recipe.trainers) > 1)
    assert ("pseudo-dataset" in stages) == (recipe.pseudo_labels is not None)
    assert ("distil" in stages) == (recipe.distil is not None)
    crossvals = parsed["crossval"]
    assert [crossval.stages for crossval in crossvals] == [["train"], ["predict"], ["evaluate"]]
    for crossval in crossvals:
        assert tuple(crossval.trainers) == recipe.trainers and crossval.seeds == recipe.seeds


def test_pseudo_labels_and_a_small_network_use_the_models_of_earlier_stages() -> None:
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "flare22_rounds"))
    options = replace(OPTIONS, split=None, device="cpu")
    stages = build_stage_commands(recipe, options, PLANS)
    labelling = parse_command(*stages["pseudo-dataset"])
    model = "SemiBaselineTrainer__nnUNetPlans_mine__3d_fullres"
    assert (labelling.dataset, labelling.new_id, labelling.models) == ("501", 701, [f"501/{model}"])
    assert (labelling.rounds, labelling.keep, labelling.score) == (3, [1, 0.962, 0.962], "change")
    assert (labelling.target, labelling.target_plans) == ("SemiBaselineTrainer", PLANS)
    assert labelling.target_folds == ["all"] and labelling.device == "cpu"
    assert not labelling.complete
    distil = parse_command(*stages["distil"])
    assert (distil.dataset, distil.model, distil.share) == ("501", f"703/{model}", 0.125)
    laptop = load_recipe(next(path for path in RECIPES if path.stem == "flare24_laptop"))
    (words,) = build_stage_commands(laptop, options, PLANS)["distil"]
    assert "501/SemiMeanTeacherTrainer__nnUNetPlans_mine__3d_fullres" in words


def test_plans_of_a_budget_are_used_everywhere(recipe_folder: Path) -> None:
    recipe = load_recipe("recipe.json")
    stages = build_stage_commands(replace(recipe, budget="0.5"), OPTIONS, PLANS)
    for stage in ("train", "predict", "evaluate", "compare", "report"):
        assert PLANS in stages[stage][0]
    preprocess, second = stages["preprocess"][0], stages["plan"][1]
    assert second == (*preprocess, "-p", PLANS)


def test_a_patch_is_of_the_plans_that_are_used_everywhere(recipe_folder: Path) -> None:
    recipe = replace(load_recipe("recipe.json"), budget=None, patch=(48, 64))
    stages = build_stage_commands(recipe, OPTIONS, PLANS)
    (planned,) = stages["plan"]
    assert planned[planned.index("--patch") + 1 :][:2] == ("48", "64")
    for stage in ("train", "predict", "evaluate", "compare", "report"):
        assert PLANS in stages[stage][0]


def test_recipes_of_one_data_set_have_plans_of_their_own() -> None:
    names = [name_recipe_plans(path) for path in RECIPES]
    assert len(set(names)) == len(names) and "nnUNetPlans_flare22_uif200" in names
    for name in (
        "my recipe",
        "\N{CYRILLIC SMALL LETTER TE}",
        "la__4",
        "la_4_",
        "la_4_seed1",
        "la.2",
        "cpu",  # the plans of `plan --budget cpu`
        "0p5",
        "auto",
    ):
        with pytest.raises(UserError, match="Fix: rename the file"):
            name_recipe_plans(Path(f"{name}.json"))
