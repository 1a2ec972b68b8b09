"""How mistakes are reported."""

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
def own_excepthook(monkeypatch):
    """The hook of the session is put back afterwards."""
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


def test_all_that_is_wrong_is_raised_at_once_and_nothing_where_nothing_is():
    raise_if_any("bad cases:", iter(()))
    problems = [Problem("a", "is empty", "copy it"), Problem("b", "is torn", "copy it")]
    with pytest.raises(UserError, match="bad cases:") as raised:
        raise_if_any("bad cases:", iter(problems))
    assert raised.value.problems == tuple(problems)


def test_an_error_without_problems_is_its_message():
    assert str(UserError("the disk is full")) == "the disk is full"


def test_an_uncaught_user_error_is_printed_without_a_traceback(own_excepthook, capsys):
    install_error_hook()
    uncaught(UserError("the disk is full"))
    assert capsys.readouterr().err == "semi_nnunet: error: the disk is full\n"
    assert own_excepthook == []


def test_other_errors_keep_their_hook(own_excepthook, capsys):
    install_error_hook()
    error = KeyError("x")
    uncaught(error)
    assert own_excepthook == [(KeyError, error, None)]
    assert capsys.readouterr().err == ""


def test_asking_twice_hooks_once(own_excepthook):
    install_error_hook()
    hook = sys.excepthook
    install_error_hook()
    assert sys.excepthook is hook


def test_an_error_of_the_disk_names_what_is_written_and_not_what_is_read():
    copied = OSError(27, "File too large", "/read/a.nii.gz", None, "/written/a.nii.gz")
    assert str(disk_error_message(copied)).startswith(
        "/written/a.nii.gz: File too large. Fix: free"
    )
    assert str(disk_error_message(OSError(28, "No space", "/a"))).startswith("/a: No space. Fix:")
    assert str(disk_error_message(OSError(28, "No space"))).startswith("No space. Fix:")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "x"), ValueError("x")])
def test_other_errors_are_none_of_the_disk(error):
    assert disk_error_message(error) is None


def test_an_uncaught_error_of_the_disk_is_printed_without_a_traceback(own_excepthook, capsys):
    install_error_hook()
    uncaught(OSError(28, "No space left on device", "/data/x"))
    assert capsys.readouterr().err.startswith("semi_nnunet: error: /data/x: No space left on devi")
    assert own_excepthook == []


def test_ctrl_c_says_how_to_go_on(own_excepthook, capsys, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    install_error_hook()
    uncaught(KeyboardInterrupt())
    assert capsys.readouterr().err == (
        "semi_nnunet: interrupted; the same command with --c goes on\n"
    )
    assert own_excepthook == []
    assert handlers == {signal.SIGINT: signal.SIG_DFL}  # a second one ends it at once


def test_what_a_terminal_would_obey_is_spelled_out():
    assert printable("a\x1b[31m\r\x9b\udcff\n\tä心") == "a\\x1b[31m\\r\\x9b\\udcff\n\tä心"
    error = UserError("bad\x1b", [Problem("x\x1b[2J", "is\x07", "rename")])
    assert str(error) == "bad\\x1b\n  x\\x1b[2J: is\\x07. Fix: rename"
    assert "\x1b" not in str(disk_error_message(OSError(28, "No space", "/a\x1b[31m")))


def test_mistakes_are_noted_to_be_told_together():
    found: list[Problem] = []
    with collect_errors(found, "-m"):
        raise UserError("no model: looked in results", fix="train one")
    with collect_errors(found, "-i"):
        raise UserError("bad cases:", [Problem("case_1", "is empty", "copy it again")])
    with collect_errors(found, "-o"):
        pass
    with collect_errors(found, "--step"):
        raise UserError("--step must be above 0, got 0", fix="correct it")
    assert [str(one) for one in found] == [
        "-m: no model: looked in results. Fix: train one",
        "case_1: is empty. Fix: copy it again",
        "--step: must be above 0, got 0. Fix: correct it",
    ]
    with pytest.raises(KeyError), collect_errors(found, "-o"):
        raise KeyError("a mistake of ours is no mistake of the user's")
