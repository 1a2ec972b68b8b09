"""Names and numbers that a user gives: each name once, those that nobody knows, those too small."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence

from semi_nnunet.util.errors import Problem, UserError


def unique(names: Sequence[str]) -> list[str]:
    """Each once, in the order given."""
    return list(dict.fromkeys(names))


def unknown(
    what: str, names: Sequence[str], known: Collection[str], why: str = "does not exist"
) -> Iterator[Problem]:
    """Names that are not known, each with the nearest that is."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            others = f"choose from {', '.join(known)}" if known else "leave it out, there is none"
            fix = f"did you mean {near[0]!r}?" if near else others
            yield Problem(f"{what} {name!r}", why, fix)


def below_one(options: Mapping[str, int | None]) -> Iterator[Problem]:
    """Those of the options' numbers that are given and not 1 or more."""
    for option, number in options.items():
        if number is not None and number < 1:
            yield Problem(option, f"must be 1 or more, got {number}", "correct it")


def require_positive(options: Mapping[str, int | None]) -> None:
    """Check options that are numbers, where they were given.

    Raises:
        UserError: one is below 1.
    """
    for problem in below_one(options):
        raise UserError(f"{problem.where} {problem.what}", fix=f"{problem.fix}")
