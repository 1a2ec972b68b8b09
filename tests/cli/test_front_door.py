"""Python users get the checks of the command line, in their words."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import semi_nnunet
from semi_nnunet.cli.front_door import check_calls, name_arguments
from semi_nnunet.util.arguments import check_argument
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.verbs.options import FIRST, Launcher, one_of, option

FUNCTIONS = [
    name for name in semi_nnunet.__all__ if not inspect.isclass(getattr(semi_nnunet, name))
]
NO_ARGUMENT_IS = [object, b"2d", float("nan"), [[None]], {1: 2}]
GROUP = one_of()


def verb(
    dataset: str,
    folds: Annotated[Sequence[str] | None, option("-f", several=True)] = None,
    *,
    exact: Annotated[bool, option(group=(FIRST, GROUP))] = False,
    fast: Annotated[bool, option(group=(FIRST, GROUP))] = False,
    device: Literal["cpu", "cuda"] | None = None,
    out: Annotated[Path | None, option("-o")] = None,
    launcher: Launcher | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the arguments."""
    return locals()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_refuses_what_it_cannot_be_and_is_named(name: str) -> None:
    function = getattr(semi_nnunet, name)
    parameters = inspect.signature(function).parameters.values()
    left_out = "images" if name == "predict" else None  # a folder or arrays
    arguments = [p for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != left_out]
    for wrong in NO_ARGUMENT_IS:
        if wrong == {1: 2}:
            arguments = [p for p in arguments if p.name != "settings"]
        with pytest.raises(UserError) as caught:
            function(**{p.name: wrong for p in arguments})
        assert {p.where for p in caught.value.problems} == {p.name for p in arguments}
    with pytest.raises(UserError) as caught:
        function(**{p.name: "" for p in arguments if p.default != ""})
    assert {p.where for p in caught.value.problems} == {
        p.name for p in arguments if p.default != ""
    }


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "convert"])
def test_an_unknown_argument_is_answered_with_the_nearest(name: str) -> None:
    function = getattr(semi_nnunet, name)
    last = [*inspect.signature(function).parameters][-1]
    with pytest.raises(UserError, match=f"did you mean '{last}'"):
        function(**{f"{last}x": 1})


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"folds": "all"}, r"folds: .*\['all'\]"),
        ({"folds": [0.5]}, "folds: must be a list of strings"),
        ({"folds": np.int64(3)}, r"folds: .*\['3'\]"),
        ({"dataset": None}, "dataset: must be a string"),
        ({"dataset": 1.5}, "dataset: must be a string"),
        ({"dataset": True}, "dataset: must be a string"),
        ({"exact": 1}, "exact: must be True or False"),
        ({"device": "cdua"}, "did you mean 'cuda'"),
        ({"device": np.zeros(2)}, "device: must be 'cpu'"),
        ({"out": ""}, "out: must be a path"),
        ({"exact": True, "fast": True}, "exact and fast: exclude each other"),
        ({"launcher": "slurm"}, "launcher: must be a Launcher"),
        ({"launcher": Launcher("slurm", jobs=1.5)}, r"launcher\.jobs: must be a whole number"),
        ({"launcher": Launcher("slrum")}, "did you mean 'slurm'"),
    ],
)
def test_a_wrong_argument_is_named_with_a_fix(arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        check_calls(verb)(**{"dataset": "42", **arguments})


def test_missing_double_and_surplus_arguments_are_one_error() -> None:
    with pytest.raises(UserError) as caught:
        check_calls(verb)("42", None, "third", dataset="42")
    assert [problem.where for problem in caught.value.problems] == ["argument 'third'", "dataset"]
    with pytest.raises(UserError, match="dataset: is missing"):
        check_calls(verb)()


def test_what_a_shell_would_give_as_text_may_be_a_number_or_path() -> None:
    given = check_calls(verb)(42, (0, np.int64(1), "all"), out="here", own=1)
    assert given["dataset"] == "42" and given["folds"] == ["0", "1", "all"]
    assert given["out"] == Path("here") and given["options"] == {"own": 1}


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(2), 2, 0.5])
def test_numbers_can_be_written_to_records(number: Any) -> None:
    value, problems = check_argument("keep", float | None, number)
    assert not problems and json.loads(json.dumps(value)) == number
    assert isinstance(value, int) == (number == 2)  # a number of cases, not a share


def test_problems_name_arguments_instead_of_options() -> None:
    fix = "semi_nnunet plan -d 42 --set epochs=3"
    error = UserError("nothing starts:", [Problem("--fast", "is wrong", fix)])
    name_arguments(verb, error)
    (problem,) = error.problems
    assert problem.where == "fast" and problem.fix == fix
    assert str(error).startswith("nothing starts:") and "fast: is wrong" in str(error)


def test_an_error_keeps_its_kind_and_trace() -> None:
    class Special(UserError):
        exit_code = 3

    def fail(count: Annotated[int, option("-n")]) -> None:
        raise Special("nothing starts:", [Problem("-n", "is wrong", "give another")])

    with pytest.raises(Special, match="count: is wrong") as caught:
        check_calls(fail)(2)
    assert caught.value.exit_code == 3 and caught.traceback[-1].name == "fail"


def test_checks_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(UserError):
        semi_nnunet.compare(plans=3.5)
    assert not caplog.records
