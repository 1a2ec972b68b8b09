"""The classes of our trainers."""

from __future__ import annotations

import inspect
import sys
from dataclasses import asdict
from pathlib import Path

from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.discovery.listing import our_trainers, stock_trainers, summary_of
from semi_nnunet.discovery.settings import settings_classes


def test_every_trainer_is_listed_under_its_own_name() -> None:
    assert {name: c.__name__ for name, c in trainer_classes().items()} == {
        name: name for name in trainer_classes()
    }
    assert {*settings_classes()} == {*trainer_classes()}
    assert stock_trainers().isdisjoint(trainer_classes())


def test_what_is_read_of_a_trainer_is_what_its_class_says() -> None:
    """Inherited or computed values would not be read: they have to be in the class itself."""
    read = our_trainers()
    assert sorted(read) == sorted(trainer_classes())
    for name, kind in trainer_classes().items():
        said = {key: getattr(kind, key) for key in ("uses_unlabelled", "segments", "taught_by")}
        said["file"] = Path(inspect.getfile(kind))
        assert asdict(read[name]) == said, name
        assert summary_of(name) == sys.modules[kind.__module__].__doc__.split("\n")[0]
