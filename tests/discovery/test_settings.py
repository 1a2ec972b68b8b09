"""The settings classes that are made from the files are those that the trainers hold."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
import typing
from typing import Any

import pytest

from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.settings import needed, settings_classes
from semi_nnunet.settings.schema import topic_of


def facts(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """What is said of a setting; a rule that the file defines is made with it, and so a new one."""
    return {
        key: value.__qualname__ if callable(value) else value
        for key, value in field.metadata.items()
    }


@pytest.mark.parametrize("name", our_trainers())
def test_they_equal_those_of_the_trainers(name: str) -> None:
    ours, theirs = settings_classes()[name], trainer_classes()[name].settings_class
    assert ours.__name__ == theirs.__name__ and ours.__doc__ == theirs.__doc__
    assert typing.get_type_hints(ours) == typing.get_type_hints(theirs)
    fields, of_trainer = dataclasses.fields(ours), dataclasses.fields(theirs)
    assert [one.name for one in fields] == [one.name for one in of_trainer]
    for one, other in zip(fields, of_trainer, strict=True):
        assert one.default == other.default and facts(one) == facts(other), one.name
        assert topic_of(ours, one.name) == topic_of(theirs, one.name)


def test_nnunets_trainer_is_not_imported() -> None:
    code = (
        "import sys; from semi_nnunet.discovery.settings import settings_classes; "
        "settings_classes(); sys.exit(sum(m in sys.modules for m in "
        "('torch._dynamo', 'nnunetv2.training.nnUNetTrainer.nnUNetTrainer', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_of_a_file_nothing_is_run_that_a_name_does_not_need() -> None:
    source = """
from __future__ import annotations
from one import heavy, light as useful
import two.deep, three
FIRST: int = three.number
SECOND = FIRST + 1
print("a side effect")
def unused(): return heavy()
def helper(): return useful(SECOND)
class Settings(useful.Base):
    value: int = helper()
class Trainer(heavy):
    settings_class = Settings
"""
    part = needed(ast.parse(source).body, "Settings")
    assert [ast.unparse(one).partition("\n")[0] for one in part] == [
        "from __future__ import annotations",
        "from one import light as useful",
        "import two.deep, three",
        "FIRST: int = three.number",
        "SECOND = FIRST + 1",
        "def helper():",
        "class Settings(useful.Base):",
    ]
