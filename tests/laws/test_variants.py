"""Published variants of the methods are trainings, and their values may be set by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.settings.schema import (
    METHOD,
    OURS,
    UNLABELLED,
    find_value_problems,
    find_variant_values,
    list_settings_of_scope,
)
from tests.trainers import UNLABELLED_TRAINERS


def list_variants() -> Iterator[tuple[str, str]]:
    """Yield every trainer with each of its published variants."""
    for trainer, settings_class in settings_classes().items():
        for field in dataclasses.fields(settings_class):
            if field.name == "variant":
                for name in field.metadata["choices"]:
                    if name != OURS:
                        yield trainer, name


VARIANTS = list(list_variants())


def test_methods_with_publications_have_variants() -> None:
    without = {"SemiDistillationTrainer", "SemiDiffusionTrainer"}  # fidelity instead
    assert {trainer for trainer, _ in VARIANTS} == set(UNLABELLED_TRAINERS) - without
    assert find_variant_values(settings_classes()["SemiBaselineTrainer"], OURS) == {}


@pytest.mark.parametrize(("trainer", "name"), VARIANTS)
def test_the_baseline_stays_matched_and_every_value_can_be_set(trainer: str, name: str) -> None:
    settings_class = settings_classes()[trainer]
    values = find_variant_values(settings_class, name)
    assert set(values) <= set(list_settings_of_scope(settings_class, METHOD, UNLABELLED))
    assert not find_value_problems(settings_class, {key: (v, "here") for key, v in values.items()})


@pytest.mark.parametrize(("trainer", "name"), VARIANTS)
def test_a_variant_trains_like_its_values(trainer: str, name: str, make_trainer: Any) -> None:
    values = find_variant_values(settings_classes()[trainer], name)
    losses = []
    for settings in ({"variant": name}, dict(values)):
        training = make_trainer(trainer, **settings)
        assert {key: getattr(training.settings, key) for key in values} == values
        for _ in range(2):
            training.train_step(next(training.dataloader_train))
        losses.append(training.records.means())
    assert losses[0] == losses[1] and any(key.startswith("loss/") for key in losses[0])
