"""What an auto has done and spent outlives it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from semi_nnunet.automatic.schedule import Rate, Round
from semi_nnunet.automatic.state import State
from semi_nnunet.util.errors import UserError

ASKED = {"configuration": "2d", "candidates": "A B"}
RUN = """
import sys, time
from pathlib import Path
from semi_nnunet.automatic import state
state.NOTE_EVERY_S = 0.1
with state.State.of(Path(sys.argv[1]), {}).running():
    print("begun", flush=True)
    time.sleep(60)
"""


def test_all_of_it_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results" / "state.json"
    before = State.of(path, ASKED)
    before.rates = {"A": Rate(0.1, 2, 3)}
    before.rounds = {"short": Round("short", ("Base", "A"), ("0", "1"), 100)}
    before.ranked = {"short": ["A", "Base"]}
    with before.running():
        time.sleep(0.2)
    after = State.of(path, ASKED)
    assert (after.rates, after.rounds, after.ranked) == (
        before.rates, before.rounds, before.ranked,
    )  # fmt: skip
    assert 0.2 <= after.seconds == before.seconds < 5


def test_the_time_of_a_killed_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    words = [sys.executable, "-c", RUN, str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "begun\n"
    time.sleep(1)
    process.kill()
    process.wait()
    assert State.of(path, {}).seconds > 0.5


def test_other_options_are_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    State.of(path, ASKED).save()
    with pytest.raises(UserError, match=r"candidates was 'A B' and is 'A'.*remove this file"):
        State.of(path, {**ASKED, "candidates": "A"})


@pytest.mark.parametrize(
    "content",
    [
        "[]", "null", "{}", '{"asked": {}}',
        '{"asked": {}, "seconds": NaN, "rates": {}, "rounds": {}, "ranked": {}}',
        '{"asked": {}, "seconds": 1, "rates": {"A": 3}, "rounds": {}, "ranked": {}}',
        '{"asked": {}, "seconds": 1, "rates": {}, "rounds": {"short": {}}, "ranked": []}',
    ],
)  # fmt: skip
def test_a_file_of_another_content_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"must be what semi_nnunet auto wrote.*remove this file"):
        State.of(path, ASKED)
