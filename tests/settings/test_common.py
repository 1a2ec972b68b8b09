"""The settings of every trainer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.settings.common import (
    FILTER_SCORES,
    TOPICS,
    CutMixSettings,
    SemiSettings,
    require_epochs,
)
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import METHOD, SCOPES, list_settings_of_scope, resolve
from semi_nnunet.util.errors import UserError

PROPERTIES = DatasetProperties(10, 50, 2, (64, 64, 64), (64.0, 64.0, 64.0))


def resolved(settings_class: type[SemiSettings] = SemiSettings, **values: Any) -> Any:
    user_values = {key: (value, "a test") for key, value in values.items()}
    return resolve(settings_class, PROPERTIES, user_values).settings


def test_every_setting_has_a_topic_a_scope_and_a_reason() -> None:
    for field in dataclasses.fields(SemiSettings):
        metadata = field.metadata
        assert metadata["topic"] in TOPICS[:-1] and metadata["scope"] in SCOPES, field.name
        assert "rule" in metadata or metadata["why"], field.name
    assert list_settings_of_scope(SemiSettings, METHOD) == ()


@pytest.mark.parametrize("settings_class", settings_classes().values(), ids=settings_classes())
def test_the_defaults_of_every_method_are_within_their_ranges(
    settings_class: type[SemiSettings],
) -> None:
    """Each default is accepted as a given value."""
    defaults = dataclasses.asdict(resolved(settings_class))
    assert dataclasses.asdict(resolved(settings_class, **defaults)) == defaults


@pytest.mark.parametrize("settings_class", settings_classes().values(), ids=settings_classes())
def test_a_method_changes_defaults_and_reasons_of_common_settings_and_nothing_else(
    settings_class: type[SemiSettings],
) -> None:
    common = {field.name: field for field in dataclasses.fields(SemiSettings)}
    fields = {field.name: field for field in dataclasses.fields(settings_class)}
    assert common.keys() <= fields.keys()
    for name, field in common.items():
        assert fields[name].type == field.type, name
        for limit in ("low", "high", "below", "choices"):
            assert fields[name].metadata[limit] == field.metadata[limit], (name, limit)


def test_steps_are_those_of_all_epochs() -> None:
    assert resolved().total_steps == 1000 * 250
    assert resolved(epochs=7, steps_per_epoch=3).total_steps == 21


def test_mixing_needs_two_patches() -> None:
    assert resolved().smallest_unlabelled_batch == 1
    assert resolved(CutMixSettings).smallest_unlabelled_batch == 2
    assert resolved(CutMixSettings, cutmix_probability=0.0).smallest_unlabelled_batch == 1


def test_one_network_is_filtered_by_entropy_and_two_by_disagreement() -> None:
    methods = settings_classes()
    for name, score in (
        ("SemiDiffusionTrainer", "entropy"),
        ("SemiDistillationTrainer", "entropy"),
        ("SemiCPSTrainer", "disagreement"),
    ):
        assert resolved(methods[name]).filter_score == score
        for other in FILTER_SCORES:
            assert resolved(methods[name], filter_score=other).filter_score == other


def test_epochs_after_the_end_are_refused() -> None:
    settings = resolved(epochs=10, filter_epochs=[3, 9])
    require_epochs(settings, "filter_epochs")
    late = resolved(epochs=10, filter_epochs=[3, 10, 12])
    with pytest.raises(UserError, match=r"filter_epochs .*\[10, 12\]"):
        require_epochs(late, "filter_epochs")
    require_epochs(late, "locate_epochs")
