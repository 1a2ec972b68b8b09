"""Commands are built from the signatures of the verbs, and parse to the same arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.util.verb_commands import build_command
from semi_nnunet.verbs.options import Launcher
from tests.runs.parsing import parse_command


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        (
            "plan",
            {"dataset": "42", "patch": [8, 8], "settings": ["epochs=3", "a=[1]"], "all": True},
        ),
        (
            "pseudo-dataset",
            {"dataset": "4", "new_id": 7, "models": ["m"], "keep": [0.5, 1.0], "views": ["blur"]},
        ),
        ("report", {"dataset": "42", "out": Path("my report.html")}),
        ("split", {"dataset": "4", "new_id": 5, "labelled": 1, "published": True}),
    ],
)
def test_a_command_gives_the_verb_its_arguments(verb: str, arguments: dict[str, Any]) -> None:
    parsed = parse_command(build_command(verb, **arguments))
    assert {name: getattr(parsed, name) for name in arguments} == arguments


def test_defaults_and_missing_values_are_left_out() -> None:
    words = build_command("split", dataset="4", new_id=5, seed=0, symlink=False, new_name=None)
    assert words == ("semi_nnunet", "split", "-d", "4", "--new-id", "5")


def test_the_fields_of_a_launcher_are_options() -> None:
    launcher = {"launcher": "slurm", "jobs": 1, "sbatch": "--gres=gpu:1 --time=1", "only": 0}
    parsed = parse_command(build_command("preprocess", dataset="4", **launcher))
    assert parsed.launcher == Launcher(**launcher)


def test_an_argument_that_the_verb_lacks_is_an_error() -> None:
    with pytest.raises(TypeError, match="plan has no argument 'epochs'"):
        build_command("plan", dataset="42", epochs=3)
