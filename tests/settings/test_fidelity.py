"""Settings with the paper's or our defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from semi_nnunet.settings.common import CutMixSettings
from semi_nnunet.settings.methods import FidelitySettings, paper_or, theta_start_steps
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import Resolved, resolve
from semi_nnunet.util.errors import UserError

PROPERTIES = DatasetProperties(10, 50, 2, (64, 64), (64.0, 64.0))


def resolved(settings_class: type = FidelitySettings, **values: Any) -> Resolved:
    user_values = {key: (value, "a test") for key, value in values.items()}
    return resolve(settings_class, PROPERTIES, user_values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(FidelitySettings):
    passes: int = paper_or(10, 1, "cheaper", low=1)
    steps: int = paper_or(lambda _, values: (values["passes"] * 2, "twice"), 5, "enough", low=1)


def test_our_values_are_the_defaults_of_every_trainer() -> None:
    ours, common = resolved().settings, resolved(CutMixSettings).settings
    for field in dataclasses.fields(CutMixSettings):
        assert getattr(ours, field.name) == getattr(common, field.name), field.name


def test_the_papers_values_are_those_of_the_paper() -> None:
    paper = resolved(fidelity="paper", epochs=10, steps_per_epoch=4).settings
    assert (paper.momentum, paper.gradient_clip, paper.appearance_strength) == (0.9, 0.0, 0.0)
    assert (paper.unlabelled_start_steps, paper.ramp_up_steps) == (0, paper.total_steps)
    assert paper.unlabelled_rotation_and_scaling and paper.cutmix_probability == 0.0
    assert paper.smallest_unlabelled_batch == 1  # nothing is mixed


@pytest.mark.parametrize("fidelity", ["paper", "improved"])
def test_a_given_value_is_used_whatever_the_fidelity(fidelity: str) -> None:
    result = resolved(fidelity=fidelity, momentum=0.5, cutmix_probability=0.25)
    assert (result.settings.momentum, result.settings.cutmix_probability) == (0.5, 0.25)
    assert "momentum" in result.user_given and "gradient_clip" not in result.user_given


def test_the_reason_names_the_source_of_the_value_and_a_rule_gives_its_own() -> None:
    paper, improved = resolved(Toy, fidelity="paper"), resolved(Toy)
    assert (paper.settings.passes, paper.reasons["passes"]) == (10, "the paper's")
    assert (improved.settings.passes, improved.reasons["passes"]) == (1, "cheaper")
    assert (paper.settings.steps, paper.reasons["steps"]) == (20, "twice")
    assert (improved.settings.steps, improved.reasons["steps"]) == (5, "enough")


def test_given_values_must_be_within_the_limits() -> None:
    with pytest.raises(UserError, match="passes"):
        resolved(Toy, passes=0)
    with pytest.raises(UserError, match="fidelity"):
        resolved(Toy, fidelity="papers")


def test_theta_waits_until_it_is_reliable_only_if_it_learns_from_labels() -> None:
    values = {"epochs": 10, "steps_per_epoch": 100}
    waiting, _ = theta_start_steps(PROPERTIES, values)
    assert waiting == theta_start_steps(PROPERTIES, {**values, "theta_on_labels": True})[0] == 400
    steps, reason = theta_start_steps(PROPERTIES, {**values, "theta_on_labels": False})
    assert steps == 0 and "theta" in reason
