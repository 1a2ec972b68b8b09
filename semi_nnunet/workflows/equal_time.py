"""Compare methods with the baseline that trained as long as they did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.evaluation.comparison import (
    ModelComparison,
    compare_tables,
    format_model,
    format_p,
    group_by_model,
)
from semi_nnunet.evaluation.points import format_difference, format_interval, format_mean
from semi_nnunet.evaluation.values import Model, Value, credit_absence, read_values
from semi_nnunet.runs.folders import Folders, load_patient_finder
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.longer_baseline import (
    MARK,
    TrainingLength,
    find_longer_baselines,
    read_training_length,
)
from semi_nnunet.runs.trainings import list_metric_tables
from semi_nnunet.util import markdown
from semi_nnunet.util.progress import readable_time
from semi_nnunet.workflows.matched import find_mismatches_with_baseline

LENGTH = ("epochs",)  # the settings in which the longer baseline differs


@dataclass(frozen=True)
class EqualTimeComparison:
    """A method compared with the baseline that trained as long.

    Args:
        compared: the comparison.
        method, baseline: lengths of their trainings, if recorded.
    """

    compared: ModelComparison
    method: TrainingLength | None
    baseline: TrainingLength | None


@dataclass(frozen=True)
class LongerBaselines:
    """The longer baselines of the methods of a data set, and the methods' own trainings.

    Args:
        folders: of the data set.
        jobs: trainings of the methods.
        longer: method -> trainings of its longer baseline.
    """

    folders: Folders
    jobs: Sequence[Job]
    longer: dict[str, list[Job]]

    @classmethod
    def find(cls, folders: Folders, plans: str, jobs: Sequence[Job]) -> LongerBaselines:
        """Find the longer baselines of methods that were trained with these plans."""
        trainers = sorted({job.trainer for job in jobs} - {BASELINE})
        return cls(folders, jobs, find_longer_baselines(folders, plans, trainers))

    @property
    def all_jobs(self) -> list[Job]:
        """The trainings of all longer baselines."""
        return [job for jobs in self.longer.values() for job in jobs]

    def compare(
        self, subset: str, values: Sequence[Value], metric: str
    ) -> list[EqualTimeComparison]:
        """Compare every method that has a longer baseline with it.

        Args:
            subset: "validation" or "test".
            values: of the metric, of the methods.
        """
        patient_of, rows = load_patient_finder(self.folders), list[Value]()
        for trainer, jobs in self.longer.items():
            measured, _ = read_values(list_metric_tables(jobs, subset), metric, patient_of)
            rows += [replace(v, model=longer_baseline_of(trainer, v.model)) for v in measured]
        tables = group_by_model(credit_absence([*values, *rows], metric))
        baselines = {
            model: tables.get(longer_baseline_of(model.trainer, model), {}) for model in tables
        }
        return [self._add_lengths(item) for item in compare_tables(tables, baselines, metric)]

    def _add_lengths(self, item: ModelComparison) -> EqualTimeComparison:
        method = read_training_length(select_jobs(self.jobs, item.model))
        longer = self.longer[item.model.trainer]
        base = read_training_length(select_jobs(longer, replace(item.model, trainer=BASELINE)))
        steps = min((length.steps for length in (method, base) if length), default=None)
        return EqualTimeComparison(replace(item, steps=steps), method, base)

    def find_mismatches(self) -> Iterator[str]:
        """Yield a sentence for each setting, apart from the length, that differs."""
        for trainer, jobs in self.longer.items():
            own = [job for job in self.jobs if job.trainer == trainer]
            yield from find_mismatches_with_baseline([*own, *jobs], BASELINE, ignore=LENGTH)


def longer_baseline_of(trainer: str, model: Model) -> Model:
    """Return the name of a method's longer baseline in tables.

    >>> longer_baseline_of("SemiUnifiedTrainer", Model("SemiBaselineTrainer", "2d"))
    Model(trainer='SemiBaselineTrainer_as_long_as_SemiUnifiedTrainer', configuration='2d')
    """
    return Model(f"{BASELINE}{MARK}{trainer}", model.configuration)


def select_jobs(jobs: Sequence[Job], model: Model) -> list[Job]:
    """Return the trainings of a model."""
    return [job for job in jobs if Model(job.trainer, job.configuration) == model]


def format_equal_time_table(compared: Sequence[EqualTimeComparison], metric: str) -> str:
    """Return a Markdown table with a row for each method, and a sentence on it."""
    rows = [
        ["method", "configuration", "steps", "time", "baseline's steps", "time", metric,
         "baseline", "difference", "95 % interval", "p (Holm)", ""],
    ]  # fmt: skip
    for row in compared:
        item = row.compared
        rows.append(
            [*format_model(item.model), *format_length(row.method),
             *format_length(row.baseline), format_mean(item.mean, metric),
             format_mean(item.baseline_mean, metric), format_difference(item.overall.mean, metric),
             format_interval(item.overall, metric), format_p(item.p_holm),
             item.reasoned_verdict(metric)]
        )  # fmt: skip
    explanation = f"At equal training time: {BASELINE} with as many steps as fit into that time."
    return f"{explanation}\n\n{markdown.table(rows)}"


def format_length(length: TrainingLength | None) -> tuple[str, str]:
    """Return steps and duration as text.

    >>> format_length(TrainingLength(2000, 3600.0))
    ('2000', '60 min')
    """
    if length is None:
        return "", ""
    return str(length.steps), readable_time(length.seconds)
