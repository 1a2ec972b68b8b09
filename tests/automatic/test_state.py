"""What an auto has done and spent outlives it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from semi_nnunet.automatic import state
from semi_nnunet.automatic.schedule import TrainingRate, TrainingRound
from semi_nnunet.automatic.state import AutoState
from semi_nnunet.util.errors import UserError

OPTIONS = {"configuration": "2d", "candidates": "A B"}
RUN = """
import sys, time
from pathlib import Path
from semi_nnunet.automatic import state
state.NOTE_EVERY_S = 0.1
with state.AutoState.of(Path(sys.argv[1]), {}).running():
    print("begun", flush=True)
    time.sleep(60)
"""


def test_the_state_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results" / "state.json"
    saved = AutoState.of(path, OPTIONS)
    saved.rates = {"A": TrainingRate(0.1, 2, 3)}
    saved.rounds = {"short": TrainingRound("short", ("Base", "A"), ("0", "1"), 100)}
    saved.ranked = {"short": ["A", "Base"]}
    with saved.running():
        time.sleep(0.2)
    restored = AutoState.of(path, OPTIONS)
    assert (restored.rates, restored.rounds, restored.ranked) == (
        saved.rates, saved.rounds, saved.ranked,
    )  # fmt: skip
    assert 0.2 <= restored.seconds == saved.seconds < 5


def test_the_time_of_a_killed_run_counts(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    words = [sys.executable, "-c", RUN, str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "begun\n"
    time.sleep(1)
    process.kill()
    process.wait()
    assert AutoState.of(path, {}).seconds > 0.5


def test_the_clock_writes_no_decision_that_is_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "NOTE_EVERY_S", 0.01)
    path = tmp_path / "state.json"
    run = AutoState.of(path, OPTIONS)
    with run.running():
        run.begun["short"] = 1.0  # the round itself follows
        time.sleep(0.2)
        killed = AutoState.of(path, OPTIONS)
        run.rounds["short"] = TrainingRound("short", ("Base", "A"), ("0", "1"), 100)
        run.save()
    assert killed.seconds > 0 and not killed.begun
    assert AutoState.of(path, OPTIONS).begun == run.begun


def test_changed_options_are_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    AutoState.of(path, OPTIONS).save()
    with pytest.raises(UserError, match=r"candidates was 'A B' and is 'A'.*remove this file"):
        AutoState.of(path, {**OPTIONS, "candidates": "A"})


@pytest.mark.parametrize(
    "content",
    [
        "[]", "null", "{}", '{"asked": {}}',
        '{"asked": {}, "seconds": NaN, "rates": {}, "rounds": {}, "ranked": {}}',
        '{"asked": {}, "seconds": 1, "rates": {"A": 3}, "rounds": {}, "ranked": {}}',
        '{"asked": {}, "seconds": 1, "rates": {}, "rounds": {"short": {}}, "ranked": []}',
    ],
)  # fmt: skip
def test_a_file_with_another_content_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"must be what semi_nnunet auto wrote.*remove this file"):
        AutoState.of(path, OPTIONS)
