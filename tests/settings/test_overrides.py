"""Layers of plans: the more specific one wins, and unknown settings are reported."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import (
    collect_given_settings,
    collect_user_layers,
    drop_new_rules,
    merge_layers,
    use_current_names,
)
from semi_nnunet.settings.schema import setting
from semi_nnunet.util.errors import UserError
from tests.settings.toy import (
    CONFIGURATIONS,
    TRAINER,
    Common,
    Method,
    list_problems,
    resolve_layers,
)


def test_the_more_specific_layer_wins():
    semi: dict[str, Any] = {"seed": 1}
    assert resolve_layers(semi).settings.seed == 1
    semi["2d"] = {"seed": 2}
    assert resolve_layers(semi).settings.seed == 2
    semi[TRAINER] = {"seed": 3}
    assert resolve_layers(semi).settings.seed == 3
    semi[TRAINER]["2d"] = {"seed": 4}
    assert resolve_layers(semi).settings.seed == 4
    assert resolve_layers(semi, "3d_fullres").settings.seed == 3
    assert resolve_layers(semi).reasons["seed"] == f"given in plans['semi']['{TRAINER}']['2d']"


def test_sections_of_other_trainers_and_configurations_are_ignored():
    semi = {"SemiOtherTrainer": {"foo": 1}, "3d_fullres": {"seed": 9}, TRAINER: {"3d_fullres": {}}}
    assert resolve_layers(semi).settings.seed == 0


def test_the_callers_plans_are_not_changed():
    semi = {"class_weights": [1, 2], TRAINER: {"2d": {"seed": 3}}}
    original = json.dumps(semi)
    resolve_layers(semi)
    assert json.dumps(semi) == original


# ---- unknown settings ----


def test_an_unknown_key_names_the_nearest_one():
    problems = list_problems({"epoch": 3, TRAINER: {"temprature": 0.1}})
    assert "'epochs'" in problems["plans['semi']['epoch']"].fix
    assert "'temperature'" in problems[f"plans['semi']['{TRAINER}']['temprature']"].fix


def test_a_key_unlike_any_setting_is_answered_by_the_list():
    problems = list_problems({"2d": {"qqqq": 3}})
    assert "seed, epochs," in problems["plans['semi']['2d']['qqqq']"].fix


@pytest.mark.parametrize("shared", [{"temperature": 0.1}, {"2d": {"temperature": 0.1}}])
def test_a_methods_key_in_a_shared_layer_is_to_be_moved(shared):
    (problem,) = list_problems(shared).values()
    assert TRAINER in problem.what and f"plans['semi']['{TRAINER}']" in problem.fix


def test_another_trainers_key_names_that_trainer():
    @dataclass(frozen=True, kw_only=True)
    class Other(Common):
        box_edge: float = setting(0.5, "the paper's", low=0, high=1)

    others = {"SemiOtherTrainer": Other, "SemiThirdTrainer": Other}
    with pytest.raises(UserError) as caught:
        collect_given_settings(
            {"box_edge": 0.3}, Common, Method, TRAINER, "2d", CONFIGURATIONS, trainers=others
        )
    (problem,) = caught.value.problems
    assert "SemiOtherTrainer, SemiThirdTrainer" in problem.what
    assert "plan --set SemiOtherTrainer.box_edge=..." in problem.fix


def test_all_problems_are_reported_in_one_error():
    problems = list_problems(
        {
            "sed": 1,
            "epochs": "ten",
            "temperature": 0.2,
            "2d": {"optimizer": "lion"},
            TRAINER: {"temperature": 7, "2d": {"rat": 1, "class_weights": [-1]}},
        }
    )
    assert len(problems) == 7


@pytest.mark.parametrize("layer", [[], 3, "x", None])
def test_a_layer_must_be_an_object(layer):
    problems = list_problems({"2d": layer, TRAINER: {"2d": layer}})
    assert set(problems) == {"plans['semi']['2d']", f"plans['semi']['{TRAINER}']['2d']"}
    assert "object" in list_problems({TRAINER: layer})[f"plans['semi']['{TRAINER}']"].what
    assert "object" in list_problems(layer)["plans['semi']"].what


def test_a_misspelt_trainer_is_reported_and_one_of_another_package_is_ignored():
    trainers = {"SemiMeanTeacherTrainer": Method, "SemiOtherTrainer": Method}

    def collect(semi: dict[str, Any]) -> dict[str, tuple[Any, str]]:
        return collect_given_settings(semi, Common, Method, TRAINER, "2d", CONFIGURATIONS, trainers)

    with pytest.raises(UserError) as caught:
        collect({"SemiMeanTeachrTrainer": {"seed": 1}, "seed": "x"})
    misspelt, seed = caught.value.problems
    assert "'SemiMeanTeacherTrainer'" in misspelt.fix and seed.where.endswith("['seed']")
    assert collect({"TheirOwnTrainer": {"anything": 1}, "seed": 3}) == {
        "seed": (3, "plans['semi']")
    }


# ---- the layers that the user gave ----

FIRST = {"seed": 1, "2d": {"epochs": 10, "rate": 0.1}, "T": {"2d": {"seed": 2}}}
SECOND = {"2d": {"epochs": 20}, "T": {"mirror": False, "2d": {"rate": 0.2}}, "new": [1, {"a": 2}]}


def test_the_second_set_of_layers_wins_setting_by_setting():
    original = json.dumps([FIRST, SECOND])
    result = merge_layers(FIRST, SECOND)
    assert result == {
        "seed": 1,
        "2d": {"epochs": 20, "rate": 0.1},
        "T": {"mirror": False, "2d": {"seed": 2, "rate": 0.2}},
        "new": [1, {"a": 2}],
    }
    assert merge_layers(FIRST, {}) == merge_layers({}, FIRST) == merge_layers(FIRST, FIRST) == FIRST
    assert merge_layers(merge_layers(FIRST, SECOND), SECOND) == result
    result["T"]["2d"]["seed"] = result["new"][1]["a"] = "changed"
    assert json.dumps([FIRST, SECOND]) == original


def test_a_value_replaces_a_layer_and_a_layer_a_value():
    assert merge_layers({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert merge_layers({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_given_and_edited_values_are_separated_from_planned_ones():
    planned = {"2d": {"epochs": 1000, "rate": 0.1}, "T": {"2d": {"seed": 2}}}
    plans = {"semi": planned, "semi_planned": {"semi": planned, "given": {"rate": 0.3}}}
    assert collect_user_layers(plans) == {"rate": 0.3}
    edited = {"2d": {"epochs": 7, "rate": 0.1}, "T": {"2d": {"seed": 2, "mirror": False}}}
    assert collect_user_layers({**plans, "semi": edited}) == {
        "rate": 0.3,
        "2d": {"epochs": 7},
        "T": {"2d": {"mirror": False}},
    }
    assert collect_user_layers({}) == {}
    assert collect_user_layers({"semi": planned}) == planned  # written by hand, never planned


def test_an_edited_value_wins_over_a_given_one():
    planned = {"2d": {"epochs": 5}}
    plans = {"semi": {"2d": {"epochs": 7}}, "semi_planned": {"semi": planned, "given": planned}}
    assert collect_user_layers(plans) == {"2d": {"epochs": 7}}


def test_values_of_newer_rules_are_dropped_unless_given():
    current = {
        "2d": {"epochs": 9, "new_rule": 1, "by_user": 2},
        "T": {"2d": {"new_rule": 3}},
        "seed": 4,
    }
    previous = {"2d": {"epochs": 5}, "seed": 0}
    reduced = drop_new_rules(current, previous, {"2d": {"by_user": 2}})
    assert reduced == {"2d": {"epochs": 9, "by_user": 2}, "seed": 4}
    assert drop_new_rules(current, current, {}) == current
    assert drop_new_rules(current, {}, {}) == {}
    assert drop_new_rules({"T": {}}, {}, {}) == {"T": {}}


# ---- renamed settings ----


@pytest.mark.parametrize(
    ("semi", "expected"),
    [
        ({"follow_trust": False}, False),
        ({"2d": {"follow_trust": False}}, False),
        ({TRAINER: {"follow_trust": False}}, False),
        ({"follow_trust": False, "follow_reliability": True}, True),
        ({"follow_reliability": True, "follow_trust": False}, True),
    ],
)
def test_the_earlier_name_of_a_setting_is_still_read(semi, expected):
    values = collect_given_settings(semi, SemiSettings, SemiSettings, TRAINER, "2d", CONFIGURATIONS)
    assert {name: value for name, (value, _) in values.items()} == {"follow_reliability": expected}


def test_a_newly_given_value_replaces_one_under_the_earlier_name():
    planned = {"semi": {}, "given": {"2d": {"follow_trust": False}}}
    earlier = collect_user_layers({"semi": {"follow_trust": True}, "semi_planned": planned})
    assert earlier == {"2d": {"follow_reliability": False}, "follow_reliability": True}
    layers = merge_layers(earlier, use_current_names({"2d": {"follow_trust": True}}))
    assert layers == {"2d": {"follow_reliability": True}, "follow_reliability": True}
