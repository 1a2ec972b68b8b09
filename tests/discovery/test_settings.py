"""The settings classes that are loaded without the trainers are those of the trainers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from typing import Any

import pytest

from semi_nnunet.discovery import settings as module
from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.discovery.trainers.semi_nnunet_trainers import TRAINERS
from semi_nnunet.settings.schema import find_topic


def describe_field(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return the metadata of a field, with the names of its rules."""
    return {
        key: value.__qualname__ if callable(value) else value
        for key, value in field.metadata.items()
    }


@pytest.mark.parametrize("name", our_trainers())
def test_settings_equal_those_of_the_trainer(name: str) -> None:
    light, of_trainer = settings_classes()[name], trainer_classes()[name].settings_class
    assert light.__name__ == of_trainer.__name__
    assert typing.get_type_hints(light) == typing.get_type_hints(of_trainer)
    pairs = [*zip(dataclasses.fields(light), dataclasses.fields(of_trainer), strict=True)]
    assert [first.name for first, _ in pairs] == [second.name for _, second in pairs]
    for first, second in pairs:
        assert first.default == second.default, first.name
        assert describe_field(first) == describe_field(second), first.name
        assert find_topic(light, first.name) == find_topic(of_trainer, first.name)


def test_settings_that_are_defined_next_to_a_trainer_are_imported_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "SemiMeanTeacherTrainer"
    facts = dataclasses.replace(TRAINERS[name], settings=None)
    monkeypatch.setattr(module, "TRAINERS", {**TRAINERS, name: facts})
    assert settings_classes()[name] is trainer_classes()[name].settings_class


def test_settings_are_loaded_without_torch_and_nnunets_trainer() -> None:
    code = (
        "import sys; from semi_nnunet.discovery.settings import settings_classes; "
        "settings_classes(); sys.exit(sum(m in sys.modules for m in "
        "('torch', 'nnunetv2.training.nnUNetTrainer.nnUNetTrainer', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
