"""Layers of plans: the more specific one wins, and what is no setting is named."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from semi_nnunet.settings.overrides import given_before, given_settings, merged, without_new_rules
from semi_nnunet.settings.schema import setting
from semi_nnunet.util.errors import UserError
from tests.settings.toy import CONFIGURATIONS, TRAINER, Common, Method, problems_of, settled


def test_the_more_specific_layer_wins():
    semi: dict[str, Any] = {"seed": 1}
    assert settled(semi).settings.seed == 1
    semi["2d"] = {"seed": 2}
    assert settled(semi).settings.seed == 2
    semi[TRAINER] = {"seed": 3}
    assert settled(semi).settings.seed == 3
    semi[TRAINER]["2d"] = {"seed": 4}
    assert settled(semi).settings.seed == 4
    assert settled(semi, "3d_fullres").settings.seed == 3
    assert settled(semi).reasons["seed"] == f"given in plans['semi']['{TRAINER}']['2d']"


def test_sections_of_other_trainers_and_configurations_are_passed_over():
    semi = {"SemiOtherTrainer": {"foo": 1}, "3d_fullres": {"seed": 9}, TRAINER: {"3d_fullres": {}}}
    assert settled(semi).settings.seed == 0


def test_the_callers_plans_are_not_changed():
    semi = {"class_weights": [1, 2], TRAINER: {"2d": {"seed": 3}}}
    before = json.dumps(semi)
    settled(semi)
    assert json.dumps(semi) == before


# ---- what is no setting ----


def test_an_unknown_key_names_the_nearest_one():
    found = problems_of({"epoch": 3, TRAINER: {"temprature": 0.1}})
    assert "did you mean 'epochs'?" in found["plans['semi']['epoch']"]
    assert "did you mean 'temperature'?" in found[f"plans['semi']['{TRAINER}']['temprature']"]


def test_a_key_like_no_other_is_answered_by_the_list():
    found = problems_of({"2d": {"qqqq": 3}})
    assert "remove it; the settings are seed, epochs," in found["plans['semi']['2d']['qqqq']"]


@pytest.mark.parametrize("shared", [{"temperature": 0.1}, {"2d": {"temperature": 0.1}}])
def test_a_methods_key_in_a_shared_layer_is_told_where_to_move(shared):
    (text,) = problems_of(shared).values()
    assert f"is a setting of {TRAINER} alone" in text
    assert f"move it to plans['semi']['{TRAINER}']" in text


def test_another_trainers_key_names_that_trainer():
    @dataclass(frozen=True, kw_only=True)
    class Other(Common):
        box_edge: float = setting(0.5, "the paper's", low=0, high=1)

    others = {"SemiOtherTrainer": Other, "SemiThirdTrainer": Other}
    with pytest.raises(UserError) as caught:
        given_settings(
            {"box_edge": 0.3}, Common, Method, TRAINER, "2d", CONFIGURATIONS, trainers=others
        )
    assert "is a setting of SemiOtherTrainer, SemiThirdTrainer alone" in str(caught.value)
    assert "plan --set SemiOtherTrainer.box_edge=..." in str(caught.value)


def test_all_problems_are_reported_in_one_error():
    found = problems_of(
        {
            "sed": 1,
            "epochs": "ten",
            "temperature": 0.2,
            "2d": {"optimizer": "lion"},
            TRAINER: {"temperature": 7, "2d": {"rat": 1, "class_weights": [-1]}},
        }
    )
    assert len(found) == 7


@pytest.mark.parametrize("layer", [[], 3, "x", None])
def test_a_layer_that_is_no_object_is_refused(layer):
    found = problems_of({"2d": layer, TRAINER: {"2d": layer}})
    assert set(found) == {"plans['semi']['2d']", f"plans['semi']['{TRAINER}']['2d']"}
    assert "must be a JSON object" in problems_of({TRAINER: layer})[f"plans['semi']['{TRAINER}']"]
    assert "must be a JSON object" in problems_of(layer)["plans['semi']"]


def test_a_misspelt_trainer_is_named_and_one_of_another_package_is_left_alone():
    trainers = {"SemiMeanTeacherTrainer": Method, "SemiOtherTrainer": Method}

    def given(semi: dict[str, Any]) -> dict[str, tuple[Any, str]]:
        return given_settings(semi, Common, Method, TRAINER, "2d", CONFIGURATIONS, trainers)

    with pytest.raises(UserError) as caught:
        given({"SemiMeanTeachrTrainer": {"seed": 1}, "seed": "x"})
    assert "there is no such trainer. Fix: did you mean 'SemiMeanTeacherTrainer'?" in str(
        caught.value
    )
    assert "['seed']: must be of type int" in str(caught.value)  # in one pass
    assert given({"TheirOwnTrainer": {"anything": 1}, "seed": 3}) == {"seed": (3, "plans['semi']")}


# ---- what a person gave ----

FIRST = {"seed": 1, "2d": {"epochs": 10, "rate": 0.1}, "T": {"2d": {"seed": 2}}}
SECOND = {"2d": {"epochs": 20}, "T": {"mirror": False, "2d": {"rate": 0.2}}, "new": [1, {"a": 2}]}


def test_of_two_sets_of_layers_the_second_wins_setting_by_setting():
    before = json.dumps([FIRST, SECOND])
    both = merged(FIRST, SECOND)
    assert both == {
        "seed": 1,
        "2d": {"epochs": 20, "rate": 0.1},
        "T": {"mirror": False, "2d": {"seed": 2, "rate": 0.2}},
        "new": [1, {"a": 2}],
    }
    assert merged(FIRST, {}) == merged({}, FIRST) == merged(FIRST, FIRST) == FIRST
    assert merged(merged(FIRST, SECOND), SECOND) == both
    both["T"]["2d"]["seed"] = both["new"][1]["a"] = "changed"
    assert json.dumps([FIRST, SECOND]) == before


def test_a_value_takes_the_place_of_a_layer_and_the_other_way_round():
    assert merged({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert merged({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_what_was_given_or_edited_is_told_from_what_was_planned():
    planned = {"2d": {"epochs": 1000, "rate": 0.1}, "T": {"2d": {"seed": 2}}}
    plans = {"semi": planned, "semi_planned": {"semi": planned, "given": {"rate": 0.3}}}
    assert given_before(plans) == {"rate": 0.3}
    edited = {"2d": {"epochs": 7, "rate": 0.1}, "T": {"2d": {"seed": 2, "mirror": False}}}
    assert given_before({**plans, "semi": edited}) == {
        "rate": 0.3,
        "2d": {"epochs": 7},
        "T": {"2d": {"mirror": False}},
    }
    assert given_before({}) == {}
    assert given_before({"semi": planned}) == planned  # written by hand, never planned


def test_an_edited_value_wins_over_the_one_that_was_given():
    planned = {"2d": {"epochs": 5}}
    plans = {"semi": {"2d": {"epochs": 7}}, "semi_planned": {"semi": planned, "given": planned}}
    assert given_before(plans) == {"2d": {"epochs": 7}}


def test_values_of_newer_rules_are_left_out_where_nobody_gave_them():
    now = {
        "2d": {"epochs": 9, "new_rule": 1, "asked_for": 2},
        "T": {"2d": {"new_rule": 3}},
        "seed": 4,
    }
    before = {"2d": {"epochs": 5}, "seed": 0}
    given = {"2d": {"asked_for": 2}}
    assert without_new_rules(now, before, given) == {"2d": {"epochs": 9, "asked_for": 2}, "seed": 4}
    assert without_new_rules(now, now, {}) == now
    assert without_new_rules(now, {}, {}) == {}
    assert without_new_rules({"T": {}}, {}, {}) == {"T": {}}
