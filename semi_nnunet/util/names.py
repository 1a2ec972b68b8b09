"""Names and numbers from a user: duplicates, unknown names, numbers that are too small."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized

from semi_nnunet.util.errors import Problem, UserError

NAME_BYTES = 200  # file systems allow 255, which leaves room for endings


def find_name_defect(name: str) -> str | None:
    r"""Return what makes a name unusable in files, pages and on the screen, or None.

    >>> find_name_defect("left atrium"), find_name_defect("a\nb")
    (None, "must have no line breaks, control characters or marks of direction, got 'a\\nb'")
    """
    if not name.isprintable():
        return f"must have no line breaks, control characters or marks of direction, got {name!a}"
    if name.startswith("-"):
        return f"must not begin with -, as options do, got {name!r}"
    if len(os.fsencode(name)) > NAME_BYTES:
        return f"must have at most {NAME_BYTES} bytes, got {name[:20]!r}..."
    return None


def unique(names: Sequence[str]) -> list[str]:
    """Return each name once, in the order of its first occurrence.

    >>> unique(["2d", "3d_fullres", "2d"])
    ['2d', '3d_fullres']
    """
    return list(dict.fromkeys(names))


def list_first(names: Collection[object], count: int = 5) -> str:
    """Join the first names, and count the others.

    >>> list_first(["case_1", "case_2", "case_3"], count=2)
    'case_1, case_2 and 1 more'
    """
    first = ", ".join(str(name) for name, _ in zip(names, range(count), strict=False))
    return f"{first} and {len(names) - count} more" if len(names) > count else first


def format_count(things: int | Sized, noun: str) -> str:
    """Return how many things there are with their noun, in the plural unless it is one.

    >>> format_count(["heart_1"], "case"), format_count(0, "case")
    ('1 case', '0 cases')

    Args:
        things: their number, or the things themselves.
        noun: in the singular.
    """
    number = things if isinstance(things, int) else len(things)
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` probably means, or None.

    >>> find_nearest("unified", ["SemiBaselineTrainer", "SemiUnifiedTrainer"])
    'SemiUnifiedTrainer'
    >>> find_nearest("foo", ["mlflow", "epochs"])
    """
    by_lower_case = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    return by_lower_case[near[0]] if near else None


def unknown(
    what: str, names: Sequence[str], known: Collection[str], why: str = "does not exist"
) -> Iterator[Problem]:
    """Yield a problem for each unknown name, with the nearest known one.

    >>> print(*unknown("configuration", ["3d_fulres"], ["2d", "3d_fullres"]))
    configuration '3d_fulres': does not exist. Fix: did you mean '3d_fullres'?
    """
    for name in names:
        if name not in known:
            near = find_nearest(name, known)
            choices = f"choose from {', '.join(known)}" if known else "leave it out, there is none"
            fix = f"did you mean {near!r}?" if near else choices
            yield Problem(f"{what} {name!r}", why, fix)


def below_one(options: Mapping[str, int | None]) -> Iterator[Problem]:
    """Yield a problem for each option that has a number below 1; ``None`` is no number."""
    for option, number in options.items():
        if number is not None and number < 1:
            yield Problem(option, f"must be 1 or more, got {number}", "correct it")


def not_above_zero(options: Mapping[str, float | None]) -> Iterator[Problem]:
    """Yield a problem for each option that is given and not a finite number above 0.

    >>> [problem.what for problem in not_above_zero({"--hours": float("inf"), "--limit": None})]
    ['must be a finite number above 0, got inf']
    """
    for option, number in options.items():
        if number is not None and not 0 < number < math.inf:
            yield Problem(option, f"must be a finite number above 0, got {number:g}", "correct it")


def require_positive(options: Mapping[str, int | None]) -> None:
    """Raise a :class:`UserError` for the first option that has a number below 1."""
    for problem in below_one(options):
        raise UserError(f"{problem.where} {problem.what}", fix=problem.fix)
