"""Values, checks and reasons of the settings."""

import dataclasses
import json
import math
from dataclasses import FrozenInstanceError, dataclass

import pytest

from semi_nnunet.settings.schema import planned, published, resolve, setting
from semi_nnunet.util.errors import UserError
from tests.settings.toy import TRAINER, Method, list_problems, resolve_layers

# ---- values and reasons


def test_without_layers_constants_and_rules_apply():
    resolved = resolve_layers({})
    assert resolved.settings == Method(epochs=100, half_epochs=50)
    assert resolved.reasons["rate"] == "usual"
    assert resolved.reasons["epochs"] == "from the properties"
    assert resolved.reasons["temperature"] == "the paper's"


def test_a_rule_sees_the_constants_declared_after_it():
    @dataclass(frozen=True, kw_only=True)
    class Faithful(Method):
        epochs: int = planned(
            lambda properties, values: (7 if values["fidelity"] == "paper" else 9, "by fidelity")
        )
        fidelity: str = setting("improved", "better", choices=("improved", "paper"))

    assert resolve(Faithful, {}, {}).settings.epochs == 9
    faithful = resolve(Faithful, {}, {"fidelity": ("paper", "a test")})
    assert (faithful.settings.epochs, faithful.settings.half_epochs) == (7, 3)
    names = [field.name for field in dataclasses.fields(Faithful)]
    assert list(faithful.reasons) == names


def test_a_given_value_reaches_the_rules_after_it():
    resolved = resolve_layers({"epochs": 30})
    assert resolved.user_given == {"epochs"}
    assert (resolved.settings.epochs, resolved.settings.half_epochs) == (30, 15)
    assert resolved.reasons["epochs"] == "given in plans['semi']"
    assert resolved.reasons["half_epochs"] == "half"


def test_null_applies_the_rule_and_is_a_value_if_allowed():
    resolved = resolve_layers({"epochs": None, "class_weights": None, "legacy": None})
    assert resolved.settings.epochs == 100 and "epochs" not in resolved.user_given
    assert resolved.reasons["epochs"] == "from the properties"
    assert resolved.settings.class_weights is None


def test_lists_become_tuples_and_everything_survives_json():
    resolved = resolve_layers(json.loads('{"class_weights": [1, 2.5]}'))
    assert resolved.settings.class_weights == (1, 2.5)
    assert json.loads(json.dumps(resolved.as_dict()))["class_weights"] == [1, 2.5]


def test_whole_numbers_are_accepted_as_real_ones():
    assert (
        resolve_layers({"rate": 0, TRAINER: {"temperature": 1}, "legacy": 1}).settings.temperature
        == 1
    )


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        resolve_layers({}).settings.seed = 5


# ---- invalid values


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("seed", True, "type int, got True"),
        ("seed", 1.0, "type int, got 1.0"),
        ("seed", "1", "type int, got '1'"),
        ("seed", None, "type int, got None"),
        ("seed", -1, "must be in [0, inf), got -1"),
        ("epochs", 0, "must be in [1, inf), got 0"),
        ("rate", False, "type float, got False"),
        ("rate", 1.0, "must be in [0, 1), got 1.0"),
        ("rate", math.nan, "must be in [0, 1), got nan"),
        ("rate", math.inf, "must be in [0, 1), got inf"),
        ("optimizer", "adm", "must be one of 'sgd', 'adam', got 'adm'"),
        ("optimizer", 3, "type str, got 3"),
        ("mirror", 1, "type bool, got 1"),
        ("mirror", "no", "type bool, got 'no'"),
        ("class_weights", [1, -2], "must be in [0, inf), got (1, -2)"),
        ("class_weights", [1, "a"], "type list of float, or null, got (1, 'a')"),
        ("class_weights", [True], "type list of float, or null, got (True,)"),
        ("class_weights", 2, "type list of float, or null, got 2"),
        ("legacy", 2.0, "must be in (-inf, 1], got 2.0"),
        ("legacy", "a", "got 'a'"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(key, value, rule):
    problems = list_problems({key: value})
    assert list(problems) == [f"plans['semi']['{key}']"]
    assert rule in problems[f"plans['semi']['{key}']"].what


def test_the_ends_of_a_closed_range_are_valid():
    for temperature in (0.0, 1.0):
        assert (
            resolve_layers({TRAINER: {"temperature": temperature}}).settings.temperature
            == temperature
        )
    (problem,) = list_problems({TRAINER: {"temperature": 1.01}}).values()
    assert "[0, 1]" in problem.what


def test_several_wrong_values_are_reported_in_one_error():
    assert len(list_problems({"seed": -1, "rate": 2, "mirror": 0, "epochs": 0})) == 4


# ---- published variants ----


@dataclass(frozen=True, kw_only=True)
class WithVariants(Method):
    variant: str = published(paper={"temperature": 0.25, "epochs": 7})


def test_a_variant_replaces_constants_and_rules_but_not_given_values():
    facts = {"epochs": 100}
    ours = resolve(WithVariants, facts, {}).settings
    assert (ours.variant, ours.temperature, ours.epochs) == ("ours", 0.5, 100)
    chosen_variant = {"variant": ("paper", "plans")}
    theirs = resolve(WithVariants, facts, chosen_variant)
    assert (theirs.settings.temperature, theirs.settings.epochs) == (0.25, 7)
    assert theirs.settings.half_epochs == 3  # a rule that depends on one of them
    assert theirs.reasons["temperature"] == "of the variant 'paper'"
    mixed = resolve(
        WithVariants, facts, {**chosen_variant, "temperature": (0.75, "plans")}
    ).settings
    assert (mixed.temperature, mixed.epochs) == (0.75, 7)


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError) as error:
        resolve(WithVariants, {"epochs": 100}, {"variant": ("papre", "plans")})
    (problem,) = error.value.problems
    assert "'variant'" in problem.where and "'ours', 'paper'" in problem.what
