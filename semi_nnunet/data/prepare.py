"""From a raw data set with ``imagesUn`` to all that training needs: verify, plan, preprocess.

Every step may be interrupted; calling :func:`prepare` again does what is left.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data.annotated_classes import AnnotatedClasses
from semi_nnunet.data.checked import Known, read_reports, write_reports
from semi_nnunet.data.domain_check import check_domain
from semi_nnunet.data.existing_plans import (
    default_plans_name,
    fingerprint_fits,
    is_derived,
    plans_there,
)
from semi_nnunet.data.integrity import (
    CaseReport,
    check_dataset,
    dataset_problems,
    duplicate_problems,
    warnings_of,
)
from semi_nnunet.data.layout import (
    CHECKED_FILE,
    SKIPPED_FILE,
    preprocessed_dataset,
    raw_dataset,
    require_paths,
)
from semi_nnunet.data.memory_needs import check_memory
from semi_nnunet.data.preprocessing import Case, Recipe, adopt_stock_preprocessing, preprocess_cases
from semi_nnunet.data.raw_description import RawDataset
from semi_nnunet.data.unlabelled_shards import UnlabelledPreprocessing, require_idle
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import (
    read_json,
    undo,
    undone_on_failure,
    write_atomically,
    write_json,
    writing,
)
from semi_nnunet.util.lock import held_in_turn

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
PLANNER = "ExperimentPlanner"
LOCK = ".semi_preprocess.lock"  # in the folder of the preprocessed data set


@dataclass(frozen=True)
class Prepared:
    """A data set of which all is ready but the unlabelled cases.

    Args:
        preprocessed: its folder.
        plans: their name.
        configurations: that are wanted.
        labelled: how many cases.
        unlabelled: the cases that are fit for use.
    """

    preprocessed: Path
    plans: str
    configurations: list[str]
    labelled: int
    unlabelled: list[Case]

    def pools(self) -> list[UnlabelledPreprocessing]:
        """The unlabelled cases of each configuration."""
        return [
            UnlabelledPreprocessing(self.preprocessed, self.plans, name)
            for name in self.configurations
        ]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Configuration -> (labelled cases, unlabelled cases)."""
        return dict.fromkeys(self.configurations, (self.labelled, len(self.unlabelled)))


def prepare(
    dataset: str,
    configurations: Sequence[str] | None,
    plans_name: str | None,
    planner: str,
    num_processes: int,
    skip_bad: bool,
    skip_outliers: bool = False,
) -> dict[str, tuple[int, int]]:
    """Verify, plan and preprocess; may be interrupted and called again.

    Args:
        dataset: number or name.
        configurations: which to preprocess; None: nnU-Net's three, as far as the plans have them.
        plans_name: nnU-Net's plans identifier; None: the planner's own.
        planner: nnU-Net's planner class, used where the plans do not exist yet.
        num_processes: worker processes.
        skip_bad: set bad unlabelled cases aside instead of stopping.
        skip_outliers: set unlabelled cases aside that differ much from the labelled ones.

    Returns:
        configuration -> (labelled cases, unlabelled cases) that are ready.

    Raises:
        UserError: every bad input, in one pass, before anything is written; images that would take
            more memory than there is, when the plans are made.
    """
    prepared = prepare_labelled(
        dataset, configurations, plans_name, planner, num_processes, skip_bad, skip_outliers
    )
    with one_at_a_time(prepared.preprocessed):
        for pool in prepared.pools():
            require_idle(pool.folder)
            preprocess(prepared.unlabelled, pool.recipe, pool.folder, num_processes, "unlabelled")
    return prepared.counts()


def prepare_labelled(
    dataset: str,
    configurations: Sequence[str] | None,
    plans_name: str | None,
    planner: str,
    num_processes: int,
    skip_bad: bool,
    skip_outliers: bool = False,
    here: bool = True,
) -> Prepared:
    """Verify and plan all, preprocess the labelled cases.

    Arguments and errors are those of :func:`prepare`, and ``here`` says that the unlabelled cases
    will be preprocessed on this machine, so that its memory has to do for them.
    """
    require_paths("raw", "preprocessed")
    plans_name = plans_name or default_plans_name(planner)
    folder, preprocessed = raw_dataset(dataset), preprocessed_dataset(dataset)
    say(f"checking {folder}")
    raw = described(folder)
    checked = preprocessed / CHECKED_FILE
    reports, skipped = verify(raw, num_processes, skip_bad, read_reports(checked))
    with one_at_a_time(preprocessed):
        plans = plan_if_needed(raw, preprocessed, plans_name, planner, num_processes)
        wanted = requested(plans, configurations)
        skipped |= check_domain(raw, reports, skipped, preprocessed, skip_outliers)
        if here:
            skipped |= check_memory(raw, reports, skipped, plans, wanted, skip_bad)
        write_reports(checked, reports)
        labelled, unlabelled = cases_to_preprocess(raw, reports, skipped)
        write_json(preprocessed / SKIPPED_FILE, skipped)
        description = raw.content
        if read_json(preprocessed / "dataset.json") != description:  # the plans fit nevertheless
            write_json(preprocessed / "dataset.json", description)
        ground_truth = preprocessed / "gt_segmentations"
        for configuration in wanted:
            recipe = Recipe(plans, configuration, description)
            folder = preprocessed / recipe.data_identifier
            if adopt_stock_preprocessing(labelled, recipe, folder, ground_truth):
                print(f"{configuration}: took over {len(labelled)} labelled cases that nnU-Net did")
            preprocess(labelled, recipe, folder, num_processes, "labelled")
        copy_ground_truth(labelled, ground_truth, description["file_ending"])
    return Prepared(preprocessed, plans_name, wanted, len(labelled), unlabelled)


def preprocess(
    cases: Sequence[Case], recipe: Recipe, folder: Path, num_processes: int, kind: str
) -> None:
    """Preprocess the "labelled" or the "unlabelled" cases of a configuration."""
    say(f"preprocessing {recipe.configuration}, {kind}: {len(cases)} cases")
    preprocess_cases(cases, recipe, folder, num_processes, f"{recipe.configuration}, {kind}")


@contextmanager
def one_at_a_time(preprocessed: Path) -> Iterator[None]:
    """During the block nobody else writes plans or cases of the data set; waits for who does."""

    def waiting(holder: str) -> None:
        print(f"{holder} prepares {preprocessed.name}: waiting for it", flush=True)

    with held_in_turn(preprocessed / LOCK, waiting):
        yield


def say(stage: str) -> None:
    """Name the stage in a log; on a terminal the progress bars do."""
    if not sys.stderr.isatty():
        print(stage, flush=True)


# ---- verify ----


def described(folder: Path) -> RawDataset:
    """The description of a raw data set.

    Raises:
        UserError: ``dataset.json`` cannot be used; with all that is wrong with it.
    """
    try:
        return RawDataset.of(folder)
    except UserError as error:
        raise UserError(f"{folder} cannot be used:", error.problems) from error


def verify(
    raw_dataset: Path | RawDataset, num_processes: int, skip_bad: bool, known: Known | None = None
) -> tuple[list[CaseReport], dict[str, list[str]]]:
    """Check the whole raw data set.

    Args:
        raw_dataset: its folder or description.
        num_processes: worker processes.
        skip_bad: set bad unlabelled cases aside.
        known: reports of earlier, see :mod:`semi_nnunet.data.checked`.

    Prints a warning of what is strange and kept.

    Returns:
        The report of every case, and the unlabelled cases set aside with their problems.

    Raises:
        UserError: everything that is wrong, except what ``skip_bad`` sets aside.
    """
    raw = raw_dataset if isinstance(raw_dataset, RawDataset) else described(raw_dataset)
    general = dataset_problems(raw)
    if any(problem.where.endswith("dataset.json") for problem in general):
        raise UserError(f"{raw.folder} cannot be used:", general)
    reports = check_dataset(raw, num_processes, known=known)
    bad: dict[str, list[Problem]] = {}
    for report in reports:
        if report.subset == "unlabelled" and report.problems:
            bad[report.case] = list(report.problems)
    for case, problem in duplicate_problems(reports).items():
        bad.setdefault(case, []).append(problem)
    serious = [p for report in reports if report.subset != "unlabelled" for p in report.problems]
    of_unlabelled = [problem for problems in bad.values() for problem in problems]
    stopping = without_repeats(general + serious + ([] if skip_bad else of_unlabelled))
    if stopping:
        hint = " (--skip-bad sets bad unlabelled cases aside)"
        helps = bool(of_unlabelled) and not skip_bad
        number = f"{len(stopping)} problem{'s' * (len(stopping) != 1)}"
        raise UserError(f"{number} in {raw.folder}{hint * helps}:", stopping)
    if bad:
        print(f"set aside {len(bad)} bad unlabelled cases:")
        print(*(f"  {problem}" for problem in of_unlabelled), sep="\n")
    if (partial := AnnotatedClasses.of(raw.description)) is not None:
        print(partial.counted(sorted(raw.labelled)))
    for warning in warnings_of(reports):
        print(f"WARNING: {warning}", flush=True)
    return reports, {case: [str(problem) for problem in bad[case]] for case in bad}


def without_repeats(problems: Sequence[Problem]) -> list[Problem]:
    """The first report of each problem; an absent file is noticed more than once."""
    return list({(problem.where, problem.what): problem for problem in problems}.values())


def cases_to_preprocess(
    raw: RawDataset, reports: Sequence[CaseReport], skipped: Mapping[str, Any]
) -> tuple[list[Case], list[Case]]:
    """The labelled and the unlabelled cases, without those set aside."""
    hashes = {(report.subset, report.case): report.content_hash or "" for report in reports}
    cases: dict[str, list[Case]] = {"labelled": [], "unlabelled": [], "test": []}
    for raw_case in raw.cases:
        if raw_case.subset == "labelled" or raw_case.case not in skipped:
            content_hash = hashes[raw_case.subset, raw_case.case]
            case = Case(raw_case.case, raw_case.images, raw_case.label, content_hash)
            cases[raw_case.subset].append(case)
    return cases["labelled"], cases["unlabelled"]


# ---- plan ----


def plan_if_needed(
    raw_dataset: Path | RawDataset,
    preprocessed: Path,
    plans_name: str,
    planner: str,
    num_processes: int,
) -> dict[str, Any]:
    """nnU-Net's fingerprint and plans; what is there and still fits is kept.

    Planning anew, because labelled cases came or went, keeps ``plans["semi"]``.

    Raises:
        UserError: the plans that are there are of another data set or version, or are derived from
            others (see :mod:`semi_nnunet.cli.plan`) and no longer fit.
    """
    raw = RawDataset.of(raw_dataset)
    plans_file = preprocessed / f"{plans_name}.json"
    written = [
        plans_file,
        *map(preprocessed.joinpath, ("dataset_fingerprint.json", "dataset.json")),
    ]
    undo(written)
    fits = fingerprint_fits(raw, preprocessed)
    before = plans_there(plans_file, raw)
    if before and fits:
        return before
    if before and is_derived(before):
        raise UserError(
            f"{plans_file} was derived from other plans, and the labelled cases or dataset.json "
            f"have changed since",
            fix=f"semi_nnunet preprocess -d {raw.number} without -p, "
            f"then make these plans again (semi_nnunet plan)",
        )
    say(f"planning {plans_name}")
    default_plans_name(planner)  # raises if there is no such planner
    number = raw.number
    with (
        variable("nnUNet_n_proc_DA", None),  # nnU-Net's planner fails where it is 0
        writing(f"{plans_name}.json and fingerprint to {preprocessed}", preprocessed),
    ):
        preprocessed.mkdir(parents=True, exist_ok=True)
        with undone_on_failure(written):
            extract_fingerprints(
                [number], num_processes=num_processes, clean=not fits, verbose=False
            )
            name = plan_experiments([number], planner, overwrite_plans_name=plans_name)
            plans = dict(read_json(preprocessed / f"{name}.json"))
            if kept := {key: before[key] for key in ("semi", "semi_planned") if key in before}:
                plans |= kept
                write_json(preprocessed / f"{name}.json", plans)
    return plans


def requested(plans: Mapping[str, Any], configurations: Sequence[str] | None) -> list[str]:
    """The configurations to preprocess, one for each kind of data.

    A cascade's second stage, for example, uses the data of 3d_fullres.

    Raises:
        UserError: one is not in the plans.
    """
    available = plans["configurations"]
    if configurations is None:
        configurations = [name for name in CONFIGURATIONS if name in available]
    unknown = [name for name in configurations if name not in available]
    if unknown:
        known = ", ".join(available)
        raise UserError(
            f"the plans have no configuration {', '.join(unknown)}", fix=f"choose from {known}"
        )
    manager = PlansManager(dict(plans))
    owners: dict[str, str] = {}  # of the data; a configuration comes after the one it inherits from
    for name in available:
        owners.setdefault(manager.get_configuration(name).data_identifier, name)
    identifiers = [manager.get_configuration(name).data_identifier for name in configurations]
    return list(dict.fromkeys(owners[identifier] for identifier in identifiers))


# ---- labels for validation ----


def copy_ground_truth(cases: Sequence[Case], folder: Path, file_ending: str) -> None:
    """Copy the labels to where nnU-Net's validation looks for them, where they differ.

    Those of cases that are labelled no more are removed: an unlabelled case has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{case.name}{file_ending}" for case in cases}
    for path in folder.glob(f"*{file_ending}"):
        if path.name not in names:
            path.unlink()
    for case in cases:
        source, target = str(case.label), folder / f"{case.name}{file_ending}"
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            write_atomically(target, partial(shutil.copyfile, source))
