r"""Which classes each case annotates, where not every case annotates all of them.

A class that a centre did not annotate is unknown in its cases, not background. ``dataset.json`` may
tell so, with the names of "labels", of one case or of all that a pattern with ``*`` and ``?``
matches::

    "annotated": {"MSD_spleen_*": ["spleen"], "case_0007": ["liver", "spleen"]}

A case that is named itself has that list, whatever pattern matches it, too. Cases that nothing
matches annotate all classes. Of regions each is a class of its own: a case annotates a region or
does not, and says nothing of the others by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch

from semi_nnunet.data.declared_labels import NO_CLASSES, declared_classes, has_regions
from semi_nnunet.data.patients import named
from semi_nnunet.util.errors import Problem, raise_if_any

KEY = "annotated"  # of dataset.json
EXAMPLE = f'"{KEY}": {{"case_0001": ["liver", "spleen"], "MSD_*": ["pancreas"]}}'


def is_partial(description: Mapping[str, Any]) -> bool:
    """Whether a dataset.json tells of cases that do not annotate all."""
    return bool(description.get(KEY))


def is_pattern(name: str) -> bool:
    """Whether a name of the entry stands for several cases."""
    return "*" in name or "?" in name


def matches(pattern: str, case: str) -> bool:
    """Whether a case is one that a pattern stands for; brackets are brackets."""
    return fnmatchcase(case, re.sub(r"\[", "[[]", pattern))


@dataclass(frozen=True)
class AnnotatedClasses:
    """Case -> the classes that it annotates.

    Args:
        entry: of dataset.json: case or pattern -> names of classes.
        classes: all names, each -> its values.
        regions: whether they are regions, of which the network predicts no background.
    """

    entry: Mapping[str, Sequence[str]]
    classes: Mapping[str, tuple[int, ...]]
    regions: bool
    _rows: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> AnnotatedClasses | None:
        """What a dataset.json tells; None: every case annotates all.

        Raises:
            UserError: its entry cannot be used.
        """
        raise_if_any("dataset.json cannot be used:", entry_problems(description, "dataset.json"))
        if not is_partial(description):
            return None
        labels = description["labels"]
        return cls(description[KEY], declared_classes(labels), has_regions(labels))

    @cached_property
    def patterns(self) -> list[str]:
        """The names of the entry that stand for several cases."""
        return [name for name in self.entry if is_pattern(name)]

    def told(self, case: str) -> dict[str, tuple[str, ...]]:
        """What the entry tells of a case: its own name alone, or every pattern that matches it."""
        own = [case] if case in self.entry else [p for p in self.patterns if matches(p, case)]
        return {name: tuple(self.entry[name]) for name in own}

    def names(self, case: str) -> tuple[str, ...]:
        """The classes that a case annotates, in the order of "labels"."""
        told = next(iter(self.told(case).values()), None)
        return tuple(name for name in self.classes if told is None or name in told)

    def leaves_out(self, case: str) -> bool:
        """Whether a case does not annotate every class."""
        return len(self.names(case)) < len(self.classes)

    def unknown_values(self, case: str) -> frozenset[int]:
        """The values that the label of a case may not hold: no class that it annotates has them."""
        own = {value for name in self.names(case) for value in self.classes[name]}
        return frozenset(value for values in self.classes.values() for value in values) - own

    def rows(self, cases: Iterable[str], device: torch.device) -> torch.Tensor:
        """Bool (cases, C), the outputs of a network that each case annotates.

        Softmax classes begin with the background, which every case annotates. The host does not
        wait for a GPU.
        """
        rows = torch.stack([self._row(case) for case in cases])
        if device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(device, non_blocking=True)

    def outputs(self) -> list[tuple[int, ...]]:
        """The values of what each output of a network is: (0,), the background, comes first.

        Regions, which have no background, are in the order of "labels", classes in that of numbers.
        """
        return (
            list(self.classes.values()) if self.regions else [(0,), *sorted(self.classes.values())]
        )

    def _row(self, case: str) -> torch.Tensor:
        if case not in self._rows:
            own = {(0,), *(self.classes[name] for name in self.names(case))}
            row = [values in own for values in self.outputs()]
            self._rows[case] = torch.tensor(row, dtype=torch.bool)
        return self._rows[case]

    def counted(self, cases: Iterable[str]) -> str:
        """How many of the cases annotate each class, for people."""
        told = [self.names(case) for case in cases]
        counts = {name: sum(name in names for names in told) for name in self.classes}
        partial = sum(len(names) < len(self.classes) for names in told)
        return (
            f"{partial} of {len(told)} labelled cases annotate some of the classes; "
            + ", ".join(f"{name} {count}" for name, count in counts.items())
        )

    def entry_of(self, cases: Iterable[str]) -> dict[str, list[str]]:
        """The entry that tells the same of these cases, each by its own name."""
        return {case: list(self.names(case)) for case in cases if self.told(case)}


def description_of(description: Mapping[str, Any], cases: Iterable[str]) -> dict[str, Any]:
    """A dataset.json that is to tell of some of the cases alone, each by its own name.

    Args:
        description: of the data set that they come from.
        cases: those with labels of people.
    """
    found = AnnotatedClasses.of(description)
    others = {key: value for key, value in description.items() if key != KEY}
    entry = {} if found is None else found.entry_of(cases)
    return {**others, KEY: entry} if entry else others


# ---- what is wrong with the entry ----


def entry_problems(description: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """What is wrong with the entry by itself.

    Args:
        description: content of dataset.json.
        where: dataset.json, for errors.
    """
    if KEY not in description:
        return
    entry, labels = description[KEY], description.get("labels")
    if not isinstance(entry, dict):
        what = f"{KEY!r} must map cases to lists of classes, got {entry!r}"
        yield Problem(where, what, f"write, for example, {EXAMPLE}")
        return
    if not isinstance(labels, dict):
        return  # reported as such
    known = [name for name in labels if name not in NO_CLASSES]
    for case, names in entry.items():
        of_case = f"{KEY!r} of {case!r}"
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            what = f"{of_case} must be a list of classes, got {names!r}"
            yield Problem(where, what, f"write, for example, {EXAMPLE}")
            continue
        if not names:
            fix = "move cases that nobody annotated to imagesUn, or name the classes"
            yield Problem(where, f"{of_case} must name a class, got none", fix)
        if always := [name for name in names if name in NO_CLASSES]:
            what = f"{of_case} must name classes alone, got {', '.join(always)}, which is none"
            yield Problem(where, what, "leave it out: it is understood everywhere")
        if strange := [name for name in names if name not in labels]:
            what = f"{of_case} must name classes of 'labels' ({named(known)}), got {named(strange)}"
            yield Problem(where, what, "correct the name, or add it to 'labels'")


def case_problems(
    description: Mapping[str, Any], cases: Mapping[str, Sequence[str]], where: str
) -> Iterator[Problem]:
    """Names of no case, patterns that disagree, and classes that no case annotates.

    Args:
        description: dataset.json, whose entry has no :func:`entry_problems`.
        cases: "labelled", "unlabelled" and "test" -> cases.
        where: dataset.json, for errors.
    """
    found = AnnotatedClasses.of(description)
    if found is None:
        return
    labelled, test, unlabelled = (cases[key] for key in ("labelled", "test", "unlabelled"))
    with_label = {*labelled, *test}
    for name in found.entry:
        fix = "correct it, or leave it out (patterns are made of * and ?)"
        if is_pattern(name):
            if name not in with_label and not any(matches(name, case) for case in with_label):
                yield Problem(where, f"{KEY!r} names {name!r}, which matches no labelled case", fix)
        elif name not in with_label:
            is_what = "an unlabelled case" if name in {*unlabelled} else "no case"
            yield Problem(where, f"{KEY!r} names {name!r}, which is {is_what}", fix)
    for case in sorted(with_label):
        told = found.told(case)
        if len({frozenset(names) for names in told.values()}) > 1:
            lists = " and ".join(f"{name!r} ({', '.join(names)})" for name, names in told.items())
            what = f"{KEY!r} must tell one list of case {case!r}, got {lists}"
            yield Problem(where, what, "name the case itself, or correct the patterns")
    everywhere = {name for case in labelled for name in found.names(case)}
    if labelled and (missing := [name for name in found.classes if name not in everywhere]):
        what = f"every class must be annotated in a case, and none annotates {named(missing)}"
        yield Problem(where, what, f"correct {KEY!r}, or remove the class from 'labels'")
