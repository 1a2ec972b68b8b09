"""The classes of our trainers agree with the table of their facts."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from semi_nnunet.discovery.classes import find_trainer_class, trainer_classes
from semi_nnunet.discovery.listing import our_trainers, stock_trainers, summary_of
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.methods import list_method_settings


def test_every_trainer_is_listed_under_the_name_of_its_class() -> None:
    assert {name: c.__name__ for name, c in trainer_classes().items()} == {
        name: name for name in trainer_classes()
    }
    assert {*settings_classes()} == {*trainer_classes()}
    assert {**list_method_settings(), "SemiBaselineTrainer": SemiSettings} == settings_classes()
    assert stock_trainers().isdisjoint(trainer_classes())


def test_the_table_agrees_with_the_attributes_of_the_classes() -> None:
    table = our_trainers()
    assert [*table] == [*trainer_classes()]
    for name, trainer in trainer_classes().items():
        facts = table[name]
        assert facts.file == Path(inspect.getfile(trainer))
        for key in ("uses_unlabelled", "segments", "taught_by"):
            assert getattr(facts, key) == getattr(trainer, key), (name, key)
        assert facts.settings == trainer.settings_class.__name__
        assert summary_of(name) == sys.modules[trainer.__module__].__doc__.split("\n")[0]


def test_a_class_is_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    assert find_trainer_class("nnUNetTrainer") is nnUNetTrainer
    assert find_trainer_class("SemiCPSTrainer") is trainer_classes()["SemiCPSTrainer"]
    with pytest.raises(RuntimeError):
        find_trainer_class("NoTrainer")
    assert capsys.readouterr().out == ""
