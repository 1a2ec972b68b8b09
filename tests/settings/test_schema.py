"""Layers, checks and reasons of the settings."""

import dataclasses
import json
import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Optional

import pytest

from semi_nnunet.settings.overrides import given_settings
from semi_nnunet.settings.schema import Resolved, planned, resolve, setting
from semi_nnunet.util.errors import UserError

TRAINER = "SemiTestTrainer"
CONFIGURATIONS = ["2d", "3d_fullres"]


@dataclass(frozen=True, kw_only=True)
class Common:
    seed: int = setting(0, "any number", low=0)
    epochs: int = planned(
        lambda properties, values: (properties["epochs"], "as the properties say"), low=1
    )
    half_of_them: int = planned(lambda properties, values: (values["epochs"] // 2, "half"), low=0)
    rate: float = setting(0.01, "usual", low=0, below=1)
    optimizer: str = setting("sgd", "nnU-Net's", choices=("sgd", "adam"))
    class_weights: tuple[float, ...] | None = setting(None, "all alike", low=0)
    mirror: bool = setting(True, "nnU-Net's")
    legacy: Optional[float] = setting(None, "the older spelling of a union", high=1)  # noqa: UP045


@dataclass(frozen=True, kw_only=True)
class Method(Common):
    temperature: float = setting(0.5, "the paper's", low=0, high=1)


def collect(semi: Any, configuration: str = "2d") -> dict[str, tuple[Any, str]]:
    return given_settings(semi, Common, Method, TRAINER, configuration, CONFIGURATIONS)


def settled(semi: Any, configuration: str = "2d") -> Resolved:
    return resolve(Method, {"epochs": 100}, collect(semi, configuration))


def problems_of(semi: Any) -> dict[str, str]:
    """Where -> what, as the one error reports them."""
    with pytest.raises(UserError) as caught:
        settled(semi)
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return {problem.where: f"{problem.what}. {problem.fix}" for problem in caught.value.problems}


# ---- values and reasons


def test_without_layers_constants_and_rules_apply_with_their_reasons():
    resolved = settled({})
    assert resolved.settings == Method(epochs=100, half_of_them=50)
    assert resolved.reasons["rate"] == "usual"
    assert resolved.reasons["epochs"] == "as the properties say"
    assert resolved.reasons["temperature"] == "the paper's"


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


def test_a_rule_sees_the_constants_declared_after_it():
    @dataclass(frozen=True, kw_only=True)
    class Faithful(Method):
        epochs: int = planned(
            lambda properties, values: (7 if values["fidelity"] == "paper" else 9, "by fidelity")
        )
        fidelity: str = setting("improved", "better", choices=("improved", "paper"))

    assert resolve(Faithful, {}, {}).settings.epochs == 9
    faithful = resolve(Faithful, {}, {"fidelity": ("paper", "a test")})
    assert (faithful.settings.epochs, faithful.settings.half_of_them) == (7, 3)
    names = [field.name for field in dataclasses.fields(Faithful)]
    assert list(faithful.reasons) == names


def test_a_given_value_reaches_the_rules_after_it():
    resolved = settled({"epochs": 30})
    assert (resolved.settings.epochs, resolved.settings.half_of_them) == (30, 15)
    assert resolved.reasons["epochs"] == "given in plans['semi']"
    assert resolved.reasons["half_of_them"] == "half"


def test_null_asks_a_rule_again_and_is_a_value_where_allowed():
    resolved = settled({"epochs": None, "class_weights": None, "legacy": None})
    assert resolved.settings.epochs == 100
    assert resolved.reasons["epochs"] == "as the properties say"
    assert resolved.settings.class_weights is None


def test_lists_become_tuples_and_everything_survives_json():
    resolved = settled(json.loads('{"class_weights": [1, 2.5]}'))
    assert resolved.settings.class_weights == (1, 2.5)
    assert json.loads(json.dumps(resolved.as_dict()))["class_weights"] == [1, 2.5]


def test_whole_numbers_are_fine_where_a_real_one_is_asked_for():
    assert settled({"rate": 0, TRAINER: {"temperature": 1}, "legacy": 1}).settings.temperature == 1


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(FrozenInstanceError):
        settled({}).settings.seed = 5


def test_the_callers_plans_are_not_changed():
    semi = {"class_weights": [1, 2], TRAINER: {"2d": {"seed": 3}}}
    before = json.dumps(semi)
    settled(semi)
    assert json.dumps(semi) == before


# ---- what is wrong


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("seed", True, "must be of type int, got True"),
        ("seed", 1.0, "must be of type int, got 1.0"),
        ("seed", "1", "must be of type int, got '1'"),
        ("seed", None, "must be of type int, got None"),
        ("seed", -1, "must be in [0, inf), got -1"),
        ("epochs", 0, "must be in [1, inf), got 0"),
        ("rate", False, "must be of type float, got False"),
        ("rate", 1.0, "must be in [0, 1), got 1.0"),
        ("rate", math.nan, "must be in [0, 1), got nan"),
        ("rate", math.inf, "must be in [0, 1), got inf"),
        ("optimizer", "adm", "must be one of 'sgd', 'adam', got 'adm'"),
        ("optimizer", 3, "must be of type str, got 3"),
        ("mirror", 1, "must be of type bool, got 1"),
        ("mirror", "no", "must be of type bool, got 'no'"),
        ("class_weights", [1, -2], "must be in [0, inf), got (1, -2)"),
        ("class_weights", [1, "a"], "must be of type tuple[float, ...] | None, got (1, 'a')"),
        ("class_weights", [True], "must be of type tuple[float, ...] | None, got (True,)"),
        ("class_weights", 2, "must be of type tuple[float, ...] | None, got 2"),
        ("legacy", 2.0, "must be in (-inf, 1], got 2.0"),
        ("legacy", "a", "got 'a'"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(key, value, rule):
    found = problems_of({key: value})
    assert list(found) == [f"plans['semi']['{key}']"]
    assert rule in found[f"plans['semi']['{key}']"]


def test_the_ends_of_a_closed_range_are_fine():
    for temperature in (0.0, 1.0):
        assert settled({TRAINER: {"temperature": temperature}}).settings.temperature == temperature
    assert "must be in [0, 1]" in next(iter(problems_of({TRAINER: {"temperature": 1.01}}).values()))


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


def test_several_wrong_values_are_reported_in_one_error():
    assert len(problems_of({"seed": -1, "rate": 2, "mirror": 0, "epochs": 0})) == 4


@pytest.mark.parametrize("layer", [[], 3, "x", None])
def test_a_layer_that_is_no_object_is_refused(layer):
    found = problems_of({"2d": layer, TRAINER: {"2d": layer}})
    assert set(found) == {"plans['semi']['2d']", f"plans['semi']['{TRAINER}']['2d']"}
    assert "must be a JSON object" in problems_of({TRAINER: layer})[f"plans['semi']['{TRAINER}']"]
    assert "must be a JSON object" in problems_of(layer)["plans['semi']"]
