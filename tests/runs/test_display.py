"""The progress of commands: parsed from their output, and shown on a terminal or in a log file."""

import io

import pytest

from semi_nnunet.runs.display import CommandProgress, ShownProgress, parse_dice
from semi_nnunet.util.progress import Progress

ERASE_LINE, SHOW_CURSOR, UP = "\x1b[2K", "\x1b[?25h", "\x1b[1A"
EPOCH_LINE = "2026-11-20 10:00:00.306897: 7 of 22 epochs done, about 2 min left \n"
DICE_LINE = "2026-11-20 10:00:00.3: Pseudo dice [np.float32(0.75), np.float32(0.25), 0.5] \n"


class Screen(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.isatty = lambda: terminal


def epoch(done: int, of: int) -> str:
    return f"1: {Progress(done, of, 'epoch', '5 s')}"


def test_our_epoch_line_is_understood():
    assert Progress.parse(EPOCH_LINE) == Progress(7, 22, "epoch", "2 min")
    assert Progress.parse(DICE_LINE) is None


def test_the_dice_is_the_mean_of_the_organs_that_occur():
    assert parse_dice(DICE_LINE) == pytest.approx(0.5)
    assert parse_dice("Pseudo dice [np.float64(nan), np.float64(0.4)]") == pytest.approx(0.4)
    assert parse_dice("Pseudo dice [np.float32(9e-05), np.float32(0.0)]") == pytest.approx(4.5e-5)
    assert parse_dice("Pseudo dice [nan]") is None
    assert parse_dice(EPOCH_LINE) is None


def test_a_log_file_gets_a_line_for_every_tenth_of_the_training():
    screen = Screen(terminal=False)
    progress = ShownProgress(screen)
    for done in range(1, 41):
        progress.feed(epoch(done, 40))
        progress.feed(DICE_LINE)
        progress.tick()
    progress.finish()
    lines = screen.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].strip() == "epoch 4 of 40, Dice of patches 0.50, about 5 s left"
    assert lines[-1].strip() == "epoch 40 of 40, Dice of patches 0.50"
    assert "\r" not in screen.getvalue()


def test_a_terminal_gets_one_line_that_is_removed_at_the_end():
    screen = Screen(terminal=True)
    progress = ShownProgress(screen)
    progress.feed(epoch(3, 40))
    progress.feed(DICE_LINE)
    progress.tick()
    assert "epoch 3 of 40, Dice of patches 0.50, about 5 s left" in screen.getvalue()
    drawn = len(screen.getvalue())
    progress.finish()
    last = screen.getvalue()[drawn:]
    assert SHOW_CURSOR in last and last.endswith(UP + ERASE_LINE)


def test_a_command_without_progress_leaves_a_log_file_empty():
    progress = ShownProgress(screen := Screen(terminal=False))
    progress.feed("something else")
    progress.tick()
    progress.finish()
    assert screen.getvalue() == ""


def test_a_training_of_nnunets_own_trainer_tells_its_epochs():
    progress = CommandProgress()
    assert progress.state == "for 0 s"
    for number, seconds in ((500, 30.0), (501, 50.0)):  # continued
        progress.feed(f"2026-01-01 10:00:00.1: Epoch {number} ")
        progress.feed(f"2026-01-01 10:00:00.1: Epoch time: {seconds} s ")
    assert progress.state == "502 epochs done, 40 s each, for 0 s"
    progress.feed(epoch(3, 40))  # of our trainers, which print the number of epochs
    assert progress.state == "epoch 3 of 40, about 5 s left"
