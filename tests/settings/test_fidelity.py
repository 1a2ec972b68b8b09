"""Settings whose defaults are the paper's or ours."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from semi_nnunet.settings.common import CutMixSettings
from semi_nnunet.settings.fidelity import FidelitySettings, paper_or, theta_start_steps
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import Resolved, resolve
from semi_nnunet.util.errors import UserError

PROPERTIES = DatasetProperties(10, 50, 2, (64, 64), (64.0, 64.0), intensity_shift=0.75)


def resolved(kind: type = FidelitySettings, **given: Any) -> Resolved:
    return resolve(kind, PROPERTIES, {key: (one, "a test") for key, one in given.items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(FidelitySettings):
    passes: int = paper_or(10, 1, "cheaper", low=1)
    steps: int = paper_or(lambda _, values: (values["passes"] * 2, "twice"), 5, "enough", low=1)


def test_ours_are_the_defaults_of_every_trainer() -> None:
    ours, common = resolved().settings, resolved(CutMixSettings).settings
    for field in dataclasses.fields(CutMixSettings):
        assert getattr(ours, field.name) == getattr(common, field.name), field.name


def test_the_papers_are_those_of_the_paper() -> None:
    found = resolved(fidelity="paper", epochs=10, steps_per_epoch=4).settings
    assert (found.momentum, found.gradient_clip, found.appearance_strength) == (0.9, 0.0, 0.0)
    assert (found.unlabelled_start_steps, found.ramp_up_steps) == (0, found.total_steps)
    assert found.unlabelled_rotation_and_scaling and found.cutmix_probability == 0.0
    assert found.smallest_unlabelled_batch == 1  # nothing is mixed


@pytest.mark.parametrize("fidelity", ["paper", "improved"])
def test_a_value_that_is_given_stands_whatever_the_fidelity(fidelity: str) -> None:
    found = resolved(fidelity=fidelity, momentum=0.5, cutmix_probability=0.25)
    assert (found.settings.momentum, found.settings.cutmix_probability) == (0.5, 0.25)
    assert found.reasons["momentum"] == "given in a test"


def test_the_reason_says_whose_value_it_is_and_a_rule_gives_its_own() -> None:
    paper, improved = resolved(Toy, fidelity="paper"), resolved(Toy)
    assert (paper.settings.passes, paper.reasons["passes"]) == (10, "the paper's")
    assert (improved.settings.passes, improved.reasons["passes"]) == (1, "cheaper")
    assert (paper.settings.steps, paper.reasons["steps"]) == (20, "twice")
    assert (improved.settings.steps, improved.reasons["steps"]) == (5, "enough")


def test_the_limits_hold_for_what_is_given() -> None:
    with pytest.raises(UserError, match=r"passes.*must be in \[1, inf\), got 0"):
        resolved(Toy, passes=0)
    with pytest.raises(UserError, match="must be one of 'improved', 'paper', got 'papers'"):
        resolved(Toy, fidelity="papers")


def test_theta_waits_for_itself_only_where_it_learns_from_labels() -> None:
    values = {"epochs": 10, "steps_per_epoch": 100}
    waiting, _ = theta_start_steps(PROPERTIES, values)
    assert waiting == theta_start_steps(PROPERTIES, {**values, "theta_on_labels": True})[0] == 400
    steps, reason = theta_start_steps(PROPERTIES, {**values, "theta_on_labels": False})
    assert steps == 0 and "cannot wait" in reason
