"""The settings that every trainer has: each with a reason, and their defaults agree."""

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
from semi_nnunet.settings.schema import METHOD, SCOPES, names_of_scope, resolve
from semi_nnunet.util.errors import UserError

PROPERTIES = DatasetProperties(10, 50, 2, (64, 64, 64), (64.0, 64.0, 64.0))


def resolved(kind: type[SemiSettings] = SemiSettings, **given: Any) -> Any:
    return resolve(kind, PROPERTIES, {key: (one, "a test") for key, one in given.items()}).settings


def test_every_setting_has_a_topic_a_scope_and_a_reason() -> None:
    for field in dataclasses.fields(SemiSettings):
        about = field.metadata
        assert about["topic"] in TOPICS[:-1] and about["scope"] in SCOPES, field.name
        assert "rule" in about or about["why"], field.name
    assert names_of_scope(SemiSettings, METHOD) == ()  # which the methods' own have


@pytest.mark.parametrize("kind", settings_classes().values(), ids=settings_classes())
def test_the_defaults_of_every_method_are_within_their_ranges(kind: type[SemiSettings]) -> None:
    """Given as a person would, each is accepted."""
    defaults = dataclasses.asdict(resolved(kind))
    assert dataclasses.asdict(resolved(kind, **defaults)) == defaults


@pytest.mark.parametrize("kind", settings_classes().values(), ids=settings_classes())
def test_a_method_changes_defaults_and_reasons_of_common_settings_and_nothing_else(
    kind: type[SemiSettings],
) -> None:
    common = {field.name: field for field in dataclasses.fields(SemiSettings)}
    own = {field.name: field for field in dataclasses.fields(kind)}
    assert common.keys() <= own.keys()
    for name, field in common.items():
        assert own[name].type == field.type, name
        for limit in ("low", "high", "below", "choices"):
            assert own[name].metadata[limit] == field.metadata[limit], (name, limit)


def test_steps_are_those_of_all_epochs() -> None:
    assert resolved().total_steps == 1000 * 250
    assert resolved(epochs=7, steps_per_epoch=3).total_steps == 21


def test_two_patches_are_needed_where_one_is_mixed_into_another() -> None:
    assert resolved().smallest_unlabelled_batch == 1
    assert resolved(CutMixSettings).smallest_unlabelled_batch == 2
    assert resolved(CutMixSettings, cutmix_probability=0.0).smallest_unlabelled_batch == 1


def test_one_network_is_filtered_by_what_it_says_and_two_by_their_disagreement() -> None:
    methods = settings_classes()
    for name, score in (
        ("SemiDiffusionTrainer", "entropy"),
        ("SemiDistillationTrainer", "entropy"),
        ("SemiCPSTrainer", "disagreement"),
    ):
        assert resolved(methods[name]).filter_score == score
        for other in FILTER_SCORES:
            assert resolved(methods[name], filter_score=other).filter_score == other


def test_epochs_that_never_come_are_named() -> None:
    settings = resolved(epochs=10, filter_epochs=[3, 9])
    require_epochs(settings, "filter_epochs")
    late = resolved(epochs=10, filter_epochs=[3, 10, 12])
    with pytest.raises(
        UserError, match=r"filter_epochs must be below epochs, 10, got \[10, 12\]\. Fix"
    ):
        require_epochs(late, "filter_epochs")
    require_epochs(late, "locate_epochs")
