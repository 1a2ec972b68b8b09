r"""Domains of a data set: the scanner, camera or hospital that each case comes from.

``dataset.json`` may hold a regular expression for the part of a case's identifier that names its
domain. As the key ``patient``, it matches from the start; if it has a group, the group is the
domain::

    "domain": "chase|stare"

If identifiers do not hold the names, an object gives each domain its expression::

    "domain": {"CHASE_DB1": "c[0-9]+", "STARE": "s[0-9]+"}

The key changes no training. Without it, nothing speaks of domains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semi_nnunet.raw.folds import find_expression_problems, find_slow_expression, match_patient
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.names import list_first

DOMAIN_KEY = "domain"  # of dataset.json
NO_DOMAIN = "no domain"
EXAMPLE = "chase|stare"

DomainOf = Callable[[str], str]  # case -> its domain


@dataclass(frozen=True)
class DomainRule:
    """Maps cases to domains.

    >>> rule = DomainRule.of({"domain": "chase|stare"})
    >>> rule.domain_of("stare_0002"), rule.domain_of("kvasir_1")
    ('stare', 'no domain')

    Args:
        patterns: names of domains and their patterns; "" stands for the matched text.
    """

    patterns: tuple[tuple[str, re.Pattern[str]], ...]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> DomainRule | None:
        """Return the rule of ``dataset.json``, or None if it names no domains.

        Raises:
            UserError: an expression is invalid.
        """
        problems = find_domain_expression_problems(description, DATASET_JSON)
        raise_if_any(f"{DATASET_JSON} cannot be used:", problems)
        expressions = list_expressions(description.get(DOMAIN_KEY, {}))
        patterns = tuple((name, re.compile(text)) for name, text in expressions.items())
        return cls(patterns) if patterns else None

    def list_domains(self, case: str) -> list[str]:
        """Return every domain that matches a case."""
        matches = ((name, match_patient(pattern, case)) for name, pattern in self.patterns)
        return [name or match for name, match in matches if match]

    def domain_of(self, case: str) -> str:
        """Return the domain of a case; :data:`NO_DOMAIN` unless exactly one matches."""
        names = self.list_domains(case)
        return names[0] if len(names) == 1 else NO_DOMAIN


def list_expressions(value: Any) -> dict[str, Any]:
    """Return name of the domain -> its expression; a single expression has the name ""."""
    return dict(value) if isinstance(value, dict) else {"": value}


def find_domain_expression_problems(
    description: Mapping[str, Any], file_name: str
) -> Iterator[Problem]:
    """Yield a problem for each invalid expression or name of a domain in ``dataset.json``."""
    if DOMAIN_KEY not in description:
        return
    expressions = list_expressions(description[DOMAIN_KEY])
    if not expressions:
        defect = f"{DOMAIN_KEY!r} must name a domain, got {{}}"
        yield Problem(file_name, defect, f'write "{DOMAIN_KEY}": "{EXAMPLE}", or remove it')
    for name, expression in expressions.items():
        key = describe_key(name)
        yield from find_expression_problems(key, expression, EXAMPLE, file_name)
        is_object = isinstance(description[DOMAIN_KEY], dict)
        if is_object and not (name.strip() == name != "" and name.isprintable()):
            defect = f"a name of {DOMAIN_KEY!r} must be printable, without blanks around it"
            yield Problem(file_name, f"{defect}, got {name!r}", "correct it")
        elif name == NO_DOMAIN:
            defect = f"a name of {DOMAIN_KEY!r} must not be {NO_DOMAIN!r}, which means none"
            yield Problem(file_name, defect, "choose another name")


def find_domain_problems(
    description: Mapping[str, Any], cases: Sequence[str], file_name: str
) -> Iterator[Problem]:
    """Yield cases that match no domain or several.

    Args:
        description: dataset.json with valid expressions, if any.
        cases: labelled, unlabelled and test cases.
    """
    rule = DomainRule.of(description)
    if rule is None:
        return
    slow = [
        problem
        for name, pattern in rule.patterns
        for problem in find_slow_expression(describe_key(name), pattern.pattern, cases, file_name)
    ]
    if slow:
        yield from slow
        return
    matches = {case: rule.list_domains(case) for case in cases}
    if unmatched := [case for case, names in matches.items() if not names]:
        defect = f"{DOMAIN_KEY!r} must match every case from its start, but matches none of "
        fix = "correct it, or add an expression for these cases"
        yield Problem(file_name, defect + list_first(unmatched), fix)
    if ambiguous := {case: names for case, names in matches.items() if len(names) > 1}:
        texts = [f"{case} ({' and '.join(names)})" for case, names in ambiguous.items()]
        defect = f"{DOMAIN_KEY!r} must give each case one domain, but several match "
        fix = "write expressions that exclude each other"
        yield Problem(file_name, defect + list_first(texts), fix)


def describe_key(name: str) -> str:
    """Return how a problem names the expression of a domain; "" is the only one."""
    return f"{DOMAIN_KEY!r} of {name!r}" if name else repr(DOMAIN_KEY)
