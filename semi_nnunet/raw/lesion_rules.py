"""The rules by which lesions count as detected, as ``dataset.json`` or a command names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from semi_nnunet.util.errors import Problem

LESIONS_KEY = "lesions"  # of dataset.json: measure lesions, by these rules
ANY = "any"
EXAMPLE = f'for example "{ANY}" and 0.5'


@dataclass(frozen=True)
class LesionRule:
    """A rule by which a predicted and a reference lesion match.

    >>> LesionRule().name, LesionRule(0.5).name
    ('any', 'iou0.5')

    Args:
        iou: smallest IoU of the two, in (0, 1]; every lesion then matches at most one other. None:
            one voxel; lesions may then match several.
    """

    iou: float | None = None

    @property
    def name(self) -> str:
        """Name of the rule at the end of its columns."""
        return ANY if self.iou is None else f"iou{self.iou:g}"


def parse_lesion_rules(
    rules: Sequence[Any], where: str
) -> tuple[tuple[LesionRule, ...], list[Problem]]:
    """Parse rules: "any" for one shared voxel, or the smallest IoU.

    >>> parse_lesion_rules(["any", "0.5", 0.50000001], "--lesions")[0]
    (LesionRule(iou=None), LesionRule(iou=0.5))

    Args:
        rules: numbers or words.
        where: the option or key, for problems.

    Returns:
        The rules without repetitions, of those with the same name the first; and everything that
        is wrong.
    """
    parsed, problems = list[LesionRule](), list[Problem]()
    for rule in rules:
        try:
            if isinstance(rule, bool):
                raise ValueError
            iou = None if rule == ANY else float(rule)
            if iou is not None and not 0 < iou <= 1:
                raise ValueError
            parsed.append(LesionRule(iou))
        except (TypeError, ValueError):
            defect = f"must be {ANY!r} or an IoU above 0 and at most 1, got {rule!r}"
            problems.append(Problem(where, defect, f"correct it, {EXAMPLE}"))
    by_name = dict[str, LesionRule]()
    for rule in parsed:
        by_name.setdefault(rule.name, rule)
    return tuple(by_name.values()), problems


def get_lesion_rules(description: Mapping[str, Any]) -> tuple[LesionRule, ...]:
    """Return the rules that a valid ``dataset.json`` names; () if it does not ask for lesions."""
    return parse_lesion_rules(description.get(LESIONS_KEY, ()), LESIONS_KEY)[0]


def find_lesion_rule_problems(description: Mapping[str, Any], file_name: str) -> Iterator[Problem]:
    """Yield everything that is wrong with the rules in ``dataset.json``."""
    if LESIONS_KEY not in description:
        return
    rules = description[LESIONS_KEY]
    if isinstance(rules, list) and rules:
        for problem in parse_lesion_rules(rules, file_name)[1]:
            yield replace(problem, what=f"a rule of {LESIONS_KEY!r} {problem.what}")
    else:
        defect = f"{LESIONS_KEY!r} must be a list of at least one rule, got {rules!r}"
        fix = f'write "{LESIONS_KEY}": ["{ANY}", 0.5], or remove it'
        yield Problem(file_name, defect, fix)
