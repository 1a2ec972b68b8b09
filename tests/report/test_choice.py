"""The choice of a method is written as Markdown and as a file for the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.reporting.choice import MethodChoice, read_choice
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

CHOICE = MethodChoice(
    "SemiCPSTrainer",
    ("Folds 0 1 choose.",),
    (("short", "100", "0 1", "Base, <b>CPS", "CPS, Base"),),
    ("CPS is exported.",),
)


def test_the_page_is_a_table_between_sentences() -> None:
    lines = CHOICE.markdown()
    assert lines[0] == "Folds 0 1 choose." and lines[-2] == "CPS is exported."
    assert "| short | 100   | 0 1   | Base, <b>CPS | CPS, Base  |" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {6}


def test_a_written_choice_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "choice.json"
    CHOICE.write(path)
    assert read_choice(path) == CHOICE
    for other in (
        [],
        {"trainer": "", "before": []},
        {"trainer": "", "before": [], "rows": [["short"]], "after": []},
    ):
        write_json(path, other)
        with pytest.raises(UserError, match="must be what semi_nnunet auto wrote"):
            read_choice(path)
