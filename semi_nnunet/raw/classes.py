r"""Classes of a data set: which ones ``labels`` declares, and which cases annotate which.

If a centre did not annotate a class, the class is unknown in its cases; it is not background. The
entry "annotated" of ``dataset.json`` lists the classes (names of "labels") of a case, or of all
cases that match a pattern with ``*`` and ``?``::

    "annotated": {"MSD_spleen_*": ["spleen"], "case_0007": ["liver", "spleen"]}

The list of a case's own name overrides the patterns. A case without a list annotates all classes.
Each region counts as a class of its own: a case annotates the region or not, whatever holds for the
other regions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch

from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.names import list_first

ANNOTATED_KEY = "annotated"  # of dataset.json
EXAMPLE = (
    f'write, for example, "{ANNOTATED_KEY}": '
    f'{{"case_0001": ["liver", "spleen"], "MSD_*": ["pancreas"]}}'
)
NON_CLASSES = ("background", "ignore")


def get_declared_values(labels: Mapping[str, Any]) -> set[int]:
    """Return all values that label files may hold, with those of regions and of "ignore".

    Raises:
        TypeError, ValueError: a value is not a whole number.
    """
    values: set[int] = set()
    for label in labels.values():
        listed = label if isinstance(label, (list, tuple)) else [label]
        if any(isinstance(value, float) and not value.is_integer() for value in listed):
            raise ValueError(f"{label} is no whole number")
        values.update(int(value) for value in listed)
    return values


def get_declared_classes(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> values of each class or region, without the background and "ignore".

    >>> get_declared_classes({"background": 0, "whole tumour": [1, 2], "core": 2})
    {'whole tumour': (1, 2), 'core': (2,)}
    """
    return {
        name: tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
        for name, value in labels.items()
        if name not in NON_CLASSES
    }


def has_regions(labels: Mapping[str, Any]) -> bool:
    """Return whether nnU-Net treats the labels as regions: some label has several values."""
    return any(len(values) > 1 for values in get_declared_classes(labels).values())


def find_region_problems(description: Mapping[str, Any], file_name: str) -> Iterator[Problem]:
    """Yield the problems of "regions_class_order", by which regions become a label map.

    nnU-Net paints the predicted regions one after another, each with its value of the list. The
    list is right if a voxel of each declared value, painted so, lies in the same regions as before.

    Args:
        description: dataset.json with usable "labels".
        file_name: of it in problems.
    """
    labels = description["labels"]
    if not has_regions(labels):
        return
    key, regions = "regions_class_order", get_declared_classes(labels)
    order, names = description.get(key), ", ".join(regions)
    fix = f"list the label to write for each region, in the order {names}, inner regions last"
    rule = f"{key!r} must give a label for each of the {len(regions)} regions ({names})"
    if not isinstance(order, list) or len(order) != len(regions):
        yield Problem(file_name, f"{rule}, got {'none' if order is None else order}", fix)
        return
    values = {value for region in regions.values() for value in region} - {0}
    if unknown := [value for value in order if type(value) is not int or value not in values]:
        known = list_first(sorted(values), len(values))
        yield Problem(
            file_name, f"{key!r} must hold labels of the regions, {known}, got {unknown}", fix
        )
        return
    for value in sorted(values):
        inside = [name for name, region in regions.items() if value in region]
        painted = order[list(regions).index(inside[-1])]
        others = [name for name, region in regions.items() if painted in region]
        if inside != others:
            defect = f"{key!r} must give the labels back, but with {order} the label {value} of "
            defect += f"{' and '.join(inside)} becomes {painted} of {' and '.join(others)}"
            yield Problem(file_name, defect, fix)


def has_partial_labels(description: Mapping[str, Any]) -> bool:
    """Return whether a dataset.json lists cases that annotate only some classes."""
    return bool(description.get(ANNOTATED_KEY))


def is_pattern(name: str) -> bool:
    """Return whether a key of the entry stands for several cases."""
    return "*" in name or "?" in name


def matches_pattern(pattern: str, case: str) -> bool:
    """Return whether a case matches a pattern; brackets have no special meaning."""
    return fnmatchcase(case, re.sub(r"\[", "[[]", pattern))


@dataclass(frozen=True)
class AnnotatedClasses:
    """The classes that each case annotates.

    >>> labels = {"background": 0, "liver": 1, "spleen": 2}
    >>> annotated = AnnotatedClasses.of({"labels": labels, "annotated": {"MSD_*": ["spleen"]}})
    >>> annotated.names("MSD_001"), annotated.unknown_values("MSD_001")
    (('spleen',), frozenset({1}))
    >>> annotated.names("other")
    ('liver', 'spleen')

    Args:
        entry: of dataset.json: case or pattern -> names of classes.
        classes: name -> values of every class.
        regions: whether the classes are regions, without an output for the background.
    """

    entry: Mapping[str, Sequence[str]]
    classes: Mapping[str, tuple[int, ...]]
    regions: bool
    _rows: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> AnnotatedClasses | None:
        """Return the annotated classes of a dataset.json, or None if every case annotates all.

        Raises:
            UserError: the entry cannot be used.
        """
        problems = find_annotation_problems(description, DATASET_JSON)
        raise_if_any(f"{DATASET_JSON} cannot be used:", problems)
        if not has_partial_labels(description):
            return None
        labels = description["labels"]
        return cls(description[ANNOTATED_KEY], get_declared_classes(labels), has_regions(labels))

    @cached_property
    def patterns(self) -> list[str]:
        """Keys of the entry that stand for several cases."""
        return [name for name in self.entry if is_pattern(name)]

    def matching_lists(self, case: str) -> dict[str, tuple[str, ...]]:
        """Return the lists of the entry that apply to a case: its own, or those of its patterns."""
        keys = [case] if case in self.entry else self.patterns
        matching = [key for key in keys if key == case or matches_pattern(key, case)]
        return {key: tuple(self.entry[key]) for key in matching}

    def names(self, case: str) -> tuple[str, ...]:
        """Return the classes that a case annotates, in the order of "labels"."""
        listed = next(iter(self.matching_lists(case).values()), None)
        return tuple(name for name in self.classes if listed is None or name in listed)

    def leaves_out(self, case: str) -> bool:
        """Return whether a case annotates only some of the classes."""
        return len(self.names(case)) < len(self.classes)

    def unknown_values(self, case: str) -> frozenset[int]:
        """Return the values that the label of a case may not hold, as it annotates none of them."""
        annotated = {value for name in self.names(case) for value in self.classes[name]}
        return frozenset(value for values in self.classes.values() for value in values) - annotated

    def rows(self, cases: Iterable[str], device: torch.device) -> torch.Tensor:
        """Return which outputs of a network each case annotates, bool (cases, C).

        Softmax classes begin with the background, which every case annotates. The copy to a GPU is
        asynchronous.
        """
        rows = torch.stack([self._row(case) for case in cases])
        if device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(device, non_blocking=True)

    def outputs(self) -> list[tuple[int, ...]]:
        """Return the label values of each output of a network; (0,), the background, is first.

        Regions, which have no background, keep the order of "labels"; classes follow their values.
        """
        values = self.classes.values()
        return list(values) if self.regions else [(0,), *sorted(values)]

    def _row(self, case: str) -> torch.Tensor:
        if case not in self._rows:
            annotated = {(0,), *(self.classes[name] for name in self.names(case))}
            row = [values in annotated for values in self.outputs()]
            self._rows[case] = torch.tensor(row, dtype=torch.bool)
        return self._rows[case]

    def summarise(self, cases: Iterable[str]) -> str:
        """Return a sentence with the number of cases that annotate each class."""
        names_of_cases = [self.names(case) for case in cases]
        counts = {name: sum(name in names for names in names_of_cases) for name in self.classes}
        partial = sum(len(names) < len(self.classes) for names in names_of_cases)
        return (
            f"{partial} of {len(names_of_cases)} labelled cases annotate some of the classes; "
            + ", ".join(f"{name} {count}" for name, count in counts.items())
        )


def restrict_annotations(description: Mapping[str, Any], cases: Iterable[str]) -> dict[str, Any]:
    """Return a dataset.json whose entry "annotated" lists only some cases, each by its own name.

    Args:
        description: of the data set that the cases come from.
        cases: annotated cases.
    """
    annotated = AnnotatedClasses.of(description)
    other_keys = {key: value for key, value in description.items() if key != ANNOTATED_KEY}
    if annotated is None:
        return other_keys
    entry = {case: list(annotated.names(case)) for case in cases if annotated.matching_lists(case)}
    return {**other_keys, ANNOTATED_KEY: entry} if entry else other_keys


def find_annotation_problems(description: Mapping[str, Any], file_name: str) -> Iterator[Problem]:
    """Yield the problems of the entry that can be seen without knowing the cases."""
    if ANNOTATED_KEY not in description:
        return
    entry, labels = description[ANNOTATED_KEY], description.get("labels")
    if not isinstance(entry, dict):
        defect = f"{ANNOTATED_KEY!r} must map cases to lists of classes, got {entry!r}"
        yield Problem(file_name, defect, EXAMPLE)
        return
    if not isinstance(labels, dict):
        return  # reported elsewhere
    classes = [name for name in labels if name not in NON_CLASSES]
    for case, names in entry.items():
        of_case = f"{ANNOTATED_KEY!r} of {case!r}"
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            defect = f"{of_case} must be a list of classes, got {names!r}"
            yield Problem(file_name, defect, EXAMPLE)
            continue
        if not names:
            fix = "move unlabelled cases to imagesUn, or name the classes"
            yield Problem(file_name, f"{of_case} must name a class, got none", fix)
        if non_classes := [name for name in names if name in NON_CLASSES]:
            defect = f"{of_case} must name only classes, got {', '.join(non_classes)}"
            yield Problem(file_name, defect, "leave it out: it is understood everywhere")
        if unknown := [name for name in names if name not in labels]:
            defect = f"{of_case} must name classes of 'labels' ({list_first(classes)})"
            fix = "correct the name, or add it to 'labels'"
            yield Problem(file_name, f"{defect}, got {list_first(unknown)}", fix)


def find_annotated_case_problems(
    description: Mapping[str, Any], cases: Mapping[str, Sequence[str]], file_name: str
) -> Iterator[Problem]:
    """Yield names of no case, contradicting patterns, and classes that no case annotates.

    Args:
        description: dataset.json without :func:`find_annotation_problems`.
        cases: "labelled", "unlabelled" and "test" -> cases.
    """
    annotated = AnnotatedClasses.of(description)
    if annotated is None:
        return
    labelled, test, unlabelled = (cases[key] for key in ("labelled", "test", "unlabelled"))
    with_label = {*labelled, *test}
    for name in annotated.entry:
        if name in with_label:
            continue
        fix = "correct it, or leave it out (patterns are made of * and ?)"
        if is_pattern(name):
            if not any(matches_pattern(name, case) for case in with_label):
                yield Problem(
                    file_name,
                    f"{ANNOTATED_KEY!r} names {name!r}, which matches no labelled case",
                    fix,
                )
        else:
            status = "an unlabelled case" if name in {*unlabelled} else "no case"
            yield Problem(file_name, f"{ANNOTATED_KEY!r} names {name!r}, which is {status}", fix)
    for case in sorted(with_label):
        lists = annotated.matching_lists(case)
        if len({frozenset(names) for names in lists.values()}) > 1:
            shown = " and ".join(f"{key!r} ({', '.join(names)})" for key, names in lists.items())
            defect = f"{ANNOTATED_KEY!r} must give one list for case {case!r}, got {shown}"
            yield Problem(file_name, defect, "name the case itself, or correct the patterns")
    everywhere = {name for case in labelled for name in annotated.names(case)}
    missing = [name for name in annotated.classes if name not in everywhere]
    if labelled and missing:
        names = list_first(missing)
        defect = f"every class must be annotated in some case, but no case annotates {names}"
        yield Problem(
            file_name, defect, f"correct {ANNOTATED_KEY!r}, or remove the class from 'labels'"
        )
