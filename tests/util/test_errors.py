"""Errors for users."""

import signal
import sys

import pytest

from semi_nnunet.util.errors import (
    MAX_LISTED,
    Problem,
    UserError,
    collect_errors,
    disk_error_message,
    install_error_hook,
    printable,
    raise_if_any,
)


@pytest.fixture
def excepthook_calls(monkeypatch):
    """Restore the hook of the session afterwards."""
    calls = []
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: calls.append(arguments))
    return calls


def uncaught(error: BaseException) -> None:
    sys.excepthook(type(error), error, None)


def test_a_problem_reads_as_where_what_and_fix():
    problem = Problem("case_1", "has 2 channels, expected 1", "remove one")
    assert str(problem) == "case_1: has 2 channels, expected 1. Fix: remove one"


def test_an_error_lists_its_problems_under_its_message():
    problems = [Problem(f"case_{i}", "is empty", "copy it again") for i in range(3)]
    error = UserError("bad cases:", problems)
    lines = str(error).splitlines()
    assert lines[0] == "bad cases:" and lines[1:] == [f"  {problem}" for problem in problems]
    assert error.problems == tuple(problems)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_a_long_list_is_cut_and_counted(extra):
    problems = [Problem(f"case_{i}", "is empty", "copy it") for i in range(MAX_LISTED + extra)]
    error = UserError("bad cases:", problems)
    assert len(error.problems) == MAX_LISTED + extra
    assert (f"... and {extra} more" in str(error)) == (extra > 0)
    assert len(str(error).splitlines()) == 1 + MAX_LISTED + (extra > 0)


def test_problems_are_raised_together_and_no_problem_raises_nothing():
    raise_if_any("bad cases:", iter(()))
    problems = [Problem("a", "is empty", "copy it"), Problem("b", "is torn", "copy it")]
    with pytest.raises(UserError, match="bad cases:") as raised:
        raise_if_any("bad cases:", iter(problems))
    assert raised.value.problems == tuple(problems)


def test_an_error_without_problems_prints_its_message():
    assert str(UserError("the disk is full")) == "the disk is full"


def test_an_uncaught_user_error_is_printed_without_a_traceback(excepthook_calls, capsys):
    install_error_hook()
    uncaught(UserError("the disk is full"))
    assert capsys.readouterr().err == "semi_nnunet: error: the disk is full\n"
    assert excepthook_calls == []


def test_other_errors_keep_their_hook(excepthook_calls, capsys):
    install_error_hook()
    error = KeyError("x")
    uncaught(error)
    assert excepthook_calls == [(KeyError, error, None)]
    assert capsys.readouterr().err == ""


def test_installing_the_hook_twice_has_no_effect(excepthook_calls):
    install_error_hook()
    hook = sys.excepthook
    install_error_hook()
    assert sys.excepthook is hook


def test_a_disk_error_names_the_written_file_and_not_the_read_one():
    copied = OSError(27, "File too large", "/read/a.nii.gz", None, "/written/a.nii.gz")
    assert str(disk_error_message(copied)).startswith(
        "/written/a.nii.gz: File too large. Fix: free"
    )
    assert str(disk_error_message(OSError(28, "No space", "/a"))).startswith("/a: No space. Fix:")
    assert str(disk_error_message(OSError(28, "No space"))).startswith("No space. Fix:")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "x"), ValueError("x")])
def test_other_errors_are_no_disk_errors(error):
    assert disk_error_message(error) is None


def test_an_uncaught_disk_error_is_printed_without_a_traceback(excepthook_calls, capsys):
    install_error_hook()
    uncaught(OSError(28, "No space left on device", "/data/x"))
    assert capsys.readouterr().err.startswith("semi_nnunet: error: /data/x: No space left on devi")
    assert excepthook_calls == []


def test_ctrl_c_prints_how_to_continue(excepthook_calls, capsys, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    install_error_hook()
    uncaught(KeyboardInterrupt())
    message = capsys.readouterr().err
    assert message.startswith("semi_nnunet: interrupted") and "--c" in message
    assert excepthook_calls == []
    assert handlers == {signal.SIGINT: signal.SIG_DFL}  # a second Ctrl-C ends it at once


def test_control_characters_are_escaped():
    assert printable("a\x1b[31m\r\x9b\u202e\udcff\n\tä心") == (
        "a\\x1b[31m\\r\\x9b\\u202e\\udcff\n\tä心"
    )
    error = UserError("bad\x1b", [Problem("x\x1b[2J", "is\x07", "rename")])
    assert str(error) == "bad\\x1b\n  x\\x1b[2J: is\\x07. Fix: rename"
    assert "\x1b" not in str(disk_error_message(OSError(28, "No space", "/a\x1b[31m")))


def test_errors_are_collected_to_be_reported_together():
    problems: list[Problem] = []
    with collect_errors(problems, "-m"):
        raise UserError("no model: looked in results", fix="train one")
    with collect_errors(problems, "-i"):
        raise UserError("bad cases:", [Problem("case_1", "is empty", "copy it again")])
    with collect_errors(problems, "-o"):
        pass
    with collect_errors(problems, "--step"):
        raise UserError("--step must be above 0, got 0", fix="correct it")
    assert [str(problem) for problem in problems] == [
        "-m: no model: looked in results. Fix: train one",
        "case_1: is empty. Fix: copy it again",
        "--step: must be above 0, got 0. Fix: correct it",
    ]
    with pytest.raises(KeyError), collect_errors(problems, "-o"):
        raise KeyError("errors of the program pass")
