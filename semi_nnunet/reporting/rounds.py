"""Rounds of annotation in the report: what was labelled when, and the Dice that followed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.evaluation.tables import average_defined
from semi_nnunet.evaluation.values import Model, Table, credit_absence, read_values
from semi_nnunet.raw.layout import read_rounds
from semi_nnunet.reporting.curves import draw_curve_panel
from semi_nnunet.reporting.measured import ALL_CLASSES, average_cases
from semi_nnunet.reporting.run_pages import Panel
from semi_nnunet.reporting.wording import DASH, format_value, name_model
from semi_nnunet.runs.folders import TEST_FOLDER, VALIDATION_FOLDER, Folders
from semi_nnunet.runs.job import Job, read_trained_from
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.runs.trainings import find_jobs, list_metric_tables
from semi_nnunet.util.names import unique

METRIC = "dice"
ROUND_COLUMNS = (
    "round",
    "date",
    "labelled cases",
    "new",
    "corrected",
    "proposed by",
    "voxels changed",
)
POINT_COLUMNS = ("method", "labelled cases", "Dice", "trainings", "plans")
Key = tuple[Model, int]  # a method, and the number of labelled cases that there were
Groups = Mapping[Key, Sequence[tuple[Job, Table]]]  # trainings and their metrics


@dataclass(frozen=True)
class RoundsPage:
    """The rounds of a data set, and the trainings before and after them.

    Args:
        rounds: a row with :data:`ROUND_COLUMNS` for each round.
        points: a row with :data:`POINT_COLUMNS` for each method and number of labelled cases.
        panel: curves of the points; None if no method was measured with two numbers.
        subset: "validation" or "test".
        cases: number of cases that all points measure.
    """

    rounds: list[tuple[str, ...]]
    points: list[tuple[str, ...]]
    panel: Panel | None
    subset: str
    cases: int


def collect_rounds(folders: Folders) -> RoundsPage | None:
    """Collect the rounds of a data set; None if no label was accepted.

    The trainings of all plans count, because each round usually has plans of its own. All points
    are means over the same cases: those that every one of these trainings measures.

    Raises:
        UserError: a table of metrics is damaged.
    """
    rounds = read_rounds(folders.raw)
    if not rounds:
        return None
    jobs = find_jobs(folders)
    subset, groups = TEST_FOLDER, group_by_labelled(jobs, TEST_FOLDER)
    if not groups:
        subset, groups = VALIDATION_FOLDER, group_by_labelled(jobs, VALIDATION_FOLDER)
    dice, cases = measure_groups(groups)
    return RoundsPage(
        [describe_round_row(entry) for entry in rounds],
        list_points(dice, groups),
        draw_rounds(dice),
        subset,
        cases,
    )


def measure_groups(groups: Groups) -> tuple[dict[Key, float], int]:
    """Return the mean Dice of each group over the cases that all measure, and their number."""
    values = {
        key: read_values([table for _, table in trainings], METRIC)[0]
        for key, trainings in groups.items()
    }
    # a class that one training invents counts as correctly absent in the others, as in `compare`
    credited = iter(credit_absence([v for listed in values.values() for v in listed], METRIC))
    means = {}
    for key, listed in values.items():
        averages = average_cases([*itertools.islice(credited, len(listed))])
        means[key] = {case: of[ALL_CLASSES] for case, of in averages.items()}
    shared = sorted(set.intersection(*map(set, means.values()))) if means else []
    if not shared:
        return {}, 0
    dice = {key: average_defined([of[case] for case in shared]) for key, of in means.items()}
    return dice, len(shared)


def list_points(dice: Mapping[Key, float], groups: Groups) -> list[tuple[str, ...]]:
    """Return the rows of all points, the baseline first."""
    models, rows = list_models(dice), list[tuple[str, ...]]()
    for model, labelled in sorted(dice, key=lambda key: (models.index(key[0]), key[1])):
        trainings = groups[model, labelled]
        plans = ", ".join(unique([split_seed_name(job.plans)[0] for job, _ in trainings]))
        value = format_value(dice[model, labelled], METRIC, 1)
        rows.append((name_model(model, models), str(labelled), value, str(len(trainings)), plans))
    return rows


def list_models(dice: Iterable[Key]) -> list[Model]:
    """Return the models of points, the baseline first."""
    models = {model for model, _ in dice}
    return sorted(models, key=lambda model: (model.trainer != BASELINE, model))


def group_by_labelled(jobs: Iterable[Job], subset: str) -> Groups:
    """Group measured trainings by model and by the labelled cases that there were.

    The cases that a fold validates on count as labelled. Trainings without a record of their cases
    are left out.
    """
    groups = defaultdict[Key, list[tuple[Job, Table]]](list)
    for job in jobs:
        recorded = read_trained_from(job)
        cases = {*recorded.get("labelled", ()), *recorded.get("validation", ())}
        if cases:
            for table in list_metric_tables([job], subset):
                model, *_, path = table
                if path.is_file():
                    groups[model, len(cases)].append((job, table))
    return groups


def describe_round_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a recorded round."""
    cases = entry["cases"].values()
    corrected = sum(case["correction"] for case in cases)
    changed = [case["changed_voxels"] for case in cases if case["changed_voxels"] is not None]
    return (
        str(entry["round"]), str(entry["when"])[:10],
        f"{entry['labelled_before']} to {entry['labelled_after']}", str(len(cases) - corrected),
        str(corrected), ", ".join(entry["models"]) or DASH, str(sum(changed)) if changed else DASH,
    )  # fmt: skip


def draw_rounds(dice: Mapping[Key, float]) -> Panel | None:
    """Draw the Dice of each method over the number of labelled cases."""
    counts = {labelled for _, labelled in dice}
    if len(counts) < 2:
        return None
    models = list_models(dice)
    first = 0 if models[0].trainer == BASELINE else 1  # its colour
    lines, legend = [], []
    for number, model in enumerate(models, first):
        own = {labelled: 100 * value for (name, labelled), value in dice.items() if name == model}
        lines.append((number, (sorted(own), [own[labelled] for labelled in sorted(own)])))
        legend.append((number, name_model(model, models)))
    label = "Dice in points over the labelled cases"
    chart = draw_curve_panel(lines, label, limit=100.0, start=min(counts), unit="cases")
    return Panel("Dice (points) over the number of labelled cases", legend, chart)
