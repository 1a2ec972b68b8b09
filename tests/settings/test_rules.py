"""The planned settings as functions of the properties."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_nnunet.settings import rules
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.methods import (
    FixMatchSettings,
    MeanTeacherSettings,
    UnifiedSettings,
    UniMatchSettings,
)
from semi_nnunet.settings.rules import DatasetProperties
from semi_nnunet.settings.schema import keep_earlier_behaviour, resolve


def properties(**changes: Any) -> DatasetProperties:
    defaults: dict[str, Any] = {
        "labelled_cases": 10,
        "unlabelled_cases": 50,
        "batch_size": 2,
        "patch_size": (64, 64, 64),
        "median_shape": (64.0, 64.0, 64.0),
    }
    return DatasetProperties(**(defaults | changes))


@st.composite
def any_properties(draw: Any) -> DatasetProperties:
    dimensions = draw(st.integers(2, 3))
    sizes = st.integers(1, 1000)
    shape = st.floats(0, 5000)
    return properties(
        labelled_cases=draw(st.integers(0, 10**5)),
        unlabelled_cases=draw(st.integers(0, 10**5)),
        batch_size=draw(st.integers(1, 512)),
        patch_size=tuple(draw(sizes) for _ in range(dimensions)),
        median_shape=tuple(draw(shape) for _ in range(dimensions)),
        foreground_classes=draw(st.integers(1, 200)),
    )


steps = st.fixed_dictionaries(
    {"epochs": st.integers(1, 10**5), "steps_per_epoch": st.integers(1, 10**4)}
)


@settings(max_examples=50)
@given(any_properties())
def test_every_plan_is_within_the_ranges_of_its_settings(any_dataset):
    resolved = resolve(MeanTeacherSettings, any_dataset, {})
    again = {
        field.name: (getattr(resolved.settings, field.name), "the plan")
        for field in dataclasses.fields(MeanTeacherSettings)
    }
    assert resolve(MeanTeacherSettings, any_dataset, again).settings == resolved.settings
    assert all(resolved.reasons.values())


def test_every_rule_gives_a_value_and_its_reason():
    resolved = resolve(SemiSettings, properties(), {})
    for field in dataclasses.fields(SemiSettings):
        if "rule" in field.metadata:
            assert len(resolved.reasons[field.name]) > 10
            assert getattr(resolved.settings, field.name) is not None


def test_the_schedule_is_nnunets():
    planned = resolve(SemiSettings, properties(), {}).settings
    assert (planned.epochs, planned.steps_per_epoch) == (1000, 250)
    assert planned.validation_steps_per_epoch == 50


BATCH_RULES = (
    "labelled_batch_size", "unlabelled_batch_size", "boxes_weight", "consistency_every_steps",
    "unlabelled_gradient_limit", "unlabelled_gradient_limit_at_end",
)  # fmt: skip


@given(st.integers(1, 512))
def test_batches_are_nnunets_and_the_streams_equally_large(batch_size):
    planned = resolve(SemiSettings, properties(batch_size=batch_size), {}).settings
    assert planned.labelled_batch_size == planned.unlabelled_batch_size == batch_size


@pytest.mark.parametrize(
    ("settings_class", "variants"),
    [(FixMatchSettings, ("paper", "whole_batch")), (UnifiedSettings, ("full", "whole_batch"))],
)
@given(batch_size=st.integers(1, 512))
def test_labelled_and_unlabelled_patches_share_nnunets_batch(settings_class, variants, batch_size):
    facts = properties(batch_size=batch_size)
    planned = resolve(settings_class, facts, {}).settings
    expected = batch_size // 2 if batch_size >= 4 else batch_size
    assert planned.labelled_batch_size == planned.unlabelled_batch_size == expected
    for variant in variants:
        whole = resolve(settings_class, facts, {"variant": (variant, "the test")}).settings
        assert whole.labelled_batch_size == whole.unlabelled_batch_size == batch_size


@given(st.integers(1, 512))
def test_the_unified_method_has_boxes_and_a_limit_in_whole_batches_only(batch_size):
    facts = properties(batch_size=batch_size)
    planned = resolve(UnifiedSettings, facts, {}).settings
    has_limit = batch_size < 4
    assert (planned.unlabelled_gradient_limit > 0) == has_limit
    assert (planned.unlabelled_gradient_limit_at_end is not None) == has_limit
    assert planned.consistency_every_steps == (2 if has_limit else 1)
    assert planned.boxes_weight == (1 if has_limit else 0)
    given_size = {"labelled_batch_size": (batch_size, "the test")}
    assert resolve(UnifiedSettings, facts, given_size).settings.unlabelled_batch_size == batch_size
    for variant in ("full", "whole_batch"):
        whole = resolve(UnifiedSettings, facts, {"variant": (variant, "the test")}).settings
        assert [getattr(whole, name) for name in BATCH_RULES[4:]] == [2.0, 0.25]
        assert whole.boxes_weight == 1
        assert whole.consistency_every_steps == (2 if variant == "whole_batch" else 1)


def test_a_training_keeps_the_batches_that_it_began_with():
    facts = properties(batch_size=12)
    stored = resolve(UnifiedSettings, facts, {"variant": ("whole_batch", "the test")}).as_dict()
    stored["variant"], stored["ramp_up_steps"] = "ours", 17

    def keep(**values):
        given_values = {name: (value, "the user") for name, value in values.items()}
        return keep_earlier_behaviour(resolve(UnifiedSettings, facts, given_values), stored)

    whole = {name: stored[name] for name in BATCH_RULES}
    assert [*whole.values()] == [12, 12, 1.0, 2, 2.0, 0.25]
    for kept in (keep(), keep(epochs=7, box_edge=0.5)):
        assert {name: getattr(kept.settings, name) for name in BATCH_RULES} == whole
        assert kept.settings.ramp_up_steps != 17  # planned again, as epochs may have changed
    changed = keep(labelled_batch_size=4).settings
    assert [getattr(changed, name) for name in BATCH_RULES] == [4, 4, 0.0, 1, 0.0, None]
    full = keep(variant="full")
    in_full = resolve(UnifiedSettings, facts, {"variant": ("full", "the user")})
    assert full.settings == in_full.settings


def test_the_unlabelled_batch_follows_a_given_labelled_one():
    given_size = {"labelled_batch_size": (7, "the test")}
    assert resolve(SemiSettings, properties(), given_size).settings.unlabelled_batch_size == 7


@pytest.mark.parametrize(("classes", "class_wise"), [(1, False), (2, True), (13, True)])
def test_several_classes_have_separate_thresholds(classes, class_wise):
    for settings_class in (FixMatchSettings, UniMatchSettings):
        resolved = resolve(settings_class, properties(foreground_classes=classes), {})
        assert resolved.settings.class_wise_threshold is class_wise
        assert ("one class" in resolved.reasons["class_wise_threshold"]) is not class_wise


def test_mirroring_is_off_if_it_confuses_two_classes():
    kidneys = properties(lookalike_classes=("left kidney", "right kidney"))
    resolved = resolve(SemiSettings, kidneys, {})
    assert (resolved.settings.mirror, resolved.settings.max_rotation_degrees) == (False, 30.0)
    assert "and right kidney" in resolved.reasons["mirror"]
    mirrored = resolve(SemiSettings, kidneys, {"mirror": (True, "the test")})
    assert (mirrored.settings.mirror, mirrored.settings.max_rotation_degrees) == (True, 180.0)
    assert resolve(SemiSettings, properties(), {}).settings.mirror


@given(steps)
def test_ramp_up_takes_two_fifths_of_the_steps_and_at_least_one(values):
    ramp, _ = rules.ramp_up_steps(properties(), values)
    total = values["epochs"] * values["steps_per_epoch"]
    assert 1 <= ramp <= total
    assert abs(ramp - 0.4 * total) <= 1


@given(steps, st.integers(1, 10))
def test_ema_decay_grows_with_the_training_into_the_published_range(values, factor):
    decay, reason = rules.ema_decay(properties(), values)
    longer, _ = rules.ema_decay(properties(), {**values, "epochs": values["epochs"] * factor})
    assert 0.9 <= decay <= longer <= 0.999
    assert (decay >= 0.99) == (values["epochs"] * values["steps_per_epoch"] >= 3000)
    assert f"{1 / (1 - decay):.0f} steps" in reason


@given(st.floats(1, 4000), st.floats(1, 4000))
def test_foreground_is_oversampled_the_more_the_larger_the_image(a, b):
    small, large = sorted((a, b))
    for_small, for_large = (
        rules.unlabelled_foreground_oversampling(properties(median_shape=(size,) * 3), {})[0]
        for size in (small, large)
    )
    assert for_small <= for_large and {for_small, for_large} <= {0.0, 0.33}


@pytest.mark.parametrize(
    ("median_shape", "share"), [((64, 64, 64), 0.0), ((64, 64, 128), 0.0), ((64, 64, 129), 0.33)]
)
def test_foreground_is_oversampled_if_a_patch_covers_less_than_half(median_shape, share):
    assert (
        rules.unlabelled_foreground_oversampling(properties(median_shape=median_shape), {})[0]
        == share
    )


def test_an_image_smaller_than_the_patch_is_covered_once():
    value, reason = rules.unlabelled_foreground_oversampling(properties(median_shape=(8, 8, 8)), {})
    assert value == 0.0 and "100%" in reason
