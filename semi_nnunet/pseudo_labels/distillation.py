"""Distil: models label the pool, the most certain cases train a target."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semi_nnunet.deploy.trained import find_models, require_same_data
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.pseudo_labels.choice import COMPARISON_SCORES, SelectionRule, find_score_problems
from semi_nnunet.pseudo_labels.distilled_dataset import (
    find_missing_plans,
    list_cascade_stages,
    list_partial_cases,
    load_available_plans,
    load_or_make_folds,
    remove_from_folds,
    require_image_folders,
    write_distilled_dataset,
    write_distilled_folds,
    write_distilled_plans,
    write_pseudo_labelled_cases,
)
from semi_nnunet.pseudo_labels.label import label_pool, require_confidence
from semi_nnunet.pseudo_labels.label_folders import (
    locate_completed_labels,
    locate_pool_labels,
    reuse_labels,
)
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.pseudo_labels.rounds import (
    Target,
    average_test_dice,
    build_preprocess_command,
    find_free_raw_folders,
    find_pool_problems,
    find_split_folders,
    find_target_problems,
    list_round_commands,
    plan_rounds,
)
from semi_nnunet.raw.description import find_cases
from semi_nnunet.raw.folds import build_patient_finder
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    SKIPPED_FILE,
    UNLABELLED_IMAGES,
    find_raw_dataset,
    get_preprocessed_dataset,
    read_dataset_number,
    read_skipped_cases,
    require_paths,
)
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.folds import count_dataset_folds
from semi_nnunet.runs.launching import JobLauncher, UnfinishedError, find_resources
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import Problem, collect_errors, raise_if_any
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import below_one
from semi_nnunet.util.verb_commands import build_command
from semi_nnunet.verify.integrity import verify_dataset
from semi_nnunet.verify.twins import join_known_twins
from semi_nnunet.workflows.next_step import format_device_option

logger = logging.getLogger(__name__)
REFUSED = "pseudo-dataset cannot start:"
OF_EVERY_ROUND = ("views", "confidence", "complete", "skip_bad", "symlink")  # arguments of its verb
Plans = Mapping[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Options of :func:`distil_dataset`.

    >>> Distillation(keep=(0.5, 1.0), rounds=2).choice.keep
    0.5

    They are those of :func:`semi_nnunet.pseudo_dataset`;
    ``keep`` has a value for each round, or one.
    """

    name: str | None = None
    views: Sequence[str] = ()
    keep: Sequence[float] = (1.0,)
    most: float | None = None
    score: str = "entropy"
    before: Sequence[str] = ()
    complete: bool = False
    confidence: float = 0.0
    target: str | None = None
    target_plans: str | None = None
    target_configuration: str | None = None
    rounds: int = 1
    folds: Sequence[str] | None = None
    seeds: int = 1
    dry_run: bool = False
    device: str | None = None
    jobs: int | None = None
    processes: int = 2
    skip_bad: bool = False
    symlink: bool = False

    @property
    def choice(self) -> SelectionRule:
        """The choice of cases in the first round."""
        choice = SelectionRule(self.keep[0], self.most, self.score, tuple(self.before))
        return choice.with_absolute_paths()

    def configuration(self, request: LabellingRequest) -> str:
        """Return the configuration to train: the target's, or the first base's."""
        return str(self.target_configuration or request.trained[0].configuration)


@dataclass(frozen=True)
class DistillationResult:
    """The data sets that a distillation made.

    Args:
        folders: raw data sets, one for each round.
        labelled, pseudo_labelled: number of cases of each kind; 0 with a target.
        following: the commands that train on the data set, if there is no target.
        dice: with a target: "-m" and data sets -> mean Dice of imagesTs, if measured.
    """

    folders: tuple[Path, ...]
    labelled: int = 0
    pseudo_labelled: int = 0
    following: tuple[Command, ...] = ()
    dice: dict[str, float] = field(default_factory=dict)


def distil_dataset(
    dataset: str, new_id: int, base: Sequence[str], options: Distillation | None = None
) -> DistillationResult:
    """Make a data set of labelled and pseudo-labelled cases, and train a target on it.

    :func:`semi_nnunet.pseudo_dataset` documents the arguments and errors.
    """
    options = options or Distillation()
    require_paths(*(() if options.target else ("raw", "preprocessed")))
    problems = [*find_option_problems(new_id, base, options)]
    with collect_errors(problems, "-d"):
        source = find_raw_dataset(dataset)
        require_image_folders(source)
        name = options.name or f"{source.name.split('_', 1)[-1]}Distilled"
        if not any(problem.where == "--new-id" for problem in problems):
            with collect_errors(problems, "--new-id"):
                raws = find_free_raw_folders(source.parent, new_id, name, options.rounds)
    with collect_errors(problems, "-m"):
        find_models(base)
    with collect_errors(problems, "--device"):
        find_resources(options.device, options.jobs)
    raise_if_any(REFUSED, problems)
    request = LabellingRequest(
        source / UNLABELLED_IMAGES, locate_pool_labels(raws[0]), tuple(base), tuple(options.views),
        options.confidence,
    )  # fmt: skip
    require_same_data(request.trained, read_json(source / DATASET_JSON), source.name)
    partial_cases = list_partial_cases(source) if options.complete else ()
    plans = load_available_plans(get_preprocessed_dataset(source.name), request.trained)
    if options.target is not None:
        return run_rounds(dataset, source, raws, request, plans, options, options.target)
    plans_name = options.target_plans or str(request.trained[0].plans["plans_name"])
    configuration = options.configuration(request)
    raise_if_any(REFUSED, find_missing_plans(plans_name, configuration, plans))
    return label_and_write(source, raws[0], request, plans, options, partial_cases)


# ---- one data set ----


def label_and_write(
    source: Path,
    raw: Path,
    request: LabellingRequest,
    plans: Plans,
    options: Distillation,
    partial_cases: Collection[str],
) -> DistillationResult:
    """Label the pool, complete the labels of ``partial_cases``, write the data set ``raw``."""
    description = read_json(source / DATASET_JSON)
    labelled = list(find_cases(source / "imagesTr", description["file_ending"]))
    preprocessed = get_preprocessed_dataset(source.name)
    patient_of = join_known_twins(build_patient_finder(description), preprocessed)
    folds = load_or_make_folds(preprocessed, labelled, patient_of)
    _, bad = verify_dataset(source, options.processes, options.skip_bad)
    skipped = {*bad, *list_skipped_cases(source)}
    launcher = JobLauncher(device=options.device, jobs=options.jobs)
    reuse_labels(request, source)
    pool = label_pool(request, launcher)
    if pool is None or not pool.cases:
        raise UnfinishedError("no image is labelled", fix="see above")
    completed = dict[str, Path]()
    if partial_cases:
        completion = replace(
            request, images=source / "imagesTr", out=locate_completed_labels(raw),
            complete=source / "labelsTr",
        )  # fmt: skip
        finished = label_pool(completion, launcher)
        if finished is None or {*partial_cases} - {*finished.cases}:
            raise UnfinishedError("not every label is completed", fix="see above")
        completed = {case: completion.label_path(case) for case in partial_cases}
    selected = write_distilled_dataset(
        source, raw, request, options.choice, options.symlink, skipped, completed
    )
    preprocessed, name = get_preprocessed_dataset(raw.name), options.target_plans
    of_models = {*selected, *completed}
    remaining = remove_from_folds(folds, completed)
    count = write_distilled_folds(remaining, preprocessed, of_models, patient_of)
    write_pseudo_labelled_cases(preprocessed, of_models)
    if name:
        write_distilled_plans(raw, preprocessed, name, plans[name], options.processes)
    target_plans = plans[name] if name else request.trained[0].plans
    stages = list_cascade_stages(target_plans, options.configuration(request))
    following = list_next_commands(raw, name, stages, [*map(str, range(count))] or [ALL])
    counts = len(labelled) - len(completed), len(of_models)
    return DistillationResult((raw,), *counts, following)


def list_skipped_cases(source: Path) -> set[str]:
    """Return the unlabelled cases that ``semi_nnunet preprocess`` has skipped, and log them."""
    preprocessed = get_preprocessed_dataset(source.name)
    cases = set(read_skipped_cases(preprocessed))
    if cases:
        path = preprocessed / SKIPPED_FILE
        logger.info(f"left out {len(cases)} unlabelled cases that preprocess skipped, see {path}")
    return cases


def list_next_commands(
    raw: Path, plans: str | None, configurations: Sequence[str], folds: Sequence[str]
) -> tuple[Command, ...]:
    """Return the commands that train on the new data set; a cascade needs every fold.

    >>> preprocess, train = list_next_commands(Path("Dataset077_X"), None, ["2d"], ["0"])
    >>> print(*preprocess)
    semi_nnunet preprocess -d 77 --skip-bad
    """
    number = str(read_dataset_number(raw))
    option = ("-p", plans) if plans else ()
    train: Command = ("nnUNetv2_train", number, *configurations, folds[0], *option)
    train = (*train, *format_device_option())
    if len(configurations) > 1:  # nnU-Net's trainer predicts too few cases
        train = build_command(
            "crossval", dataset=number, plans=plans, configurations=configurations,
            trainers=[BASELINE], folds=folds,
        )  # fmt: skip
    return build_preprocess_command(number, plans, configurations), train


# ---- rounds ----


def run_rounds(
    dataset: str,
    source: Path,
    raws: Sequence[Path],
    request: LabellingRequest,
    plans: Plans,
    options: Distillation,
    trainer: str,
) -> DistillationResult:
    """Label and train in rounds, then return the mean Dice of the test cases after each."""
    split = find_split_folders(source)
    target = make_target(trainer, split, request, plans, options)
    rounds = plan_rounds(
        raws, request.models, target, options.keep, options.choice, len(request.cases)
    )
    problems = [*find_target_problems(target, plans, split), *find_pool_problems(target, rounds)]
    raise_if_any(REFUSED, problems)
    labelling_options = {name: getattr(options, name) for name in OF_EVERY_ROUND}
    resources = {"device": options.device, "jobs": options.jobs}
    shared = (dataset, labelling_options, resources, options.processes)
    run_stages(
        (
            (f"round {number} of {len(rounds)}: {stage}", words)
            for number, labelling in enumerate(rounds, start=1)
            for stage, words in list_round_commands(labelling, target, *shared)
        ),
        options.dry_run,
    )
    if options.dry_run:
        return DistillationResult(tuple(raws))
    models = {"-m": request.models, **{raw.name: target.models(raw.name) for raw in raws}}
    dice = {name: average_test_dice(folders) for name, folders in models.items()}
    measured = {name: value for name, value in dice.items() if value is not None}
    return DistillationResult(tuple(raws), dice=measured)


def make_target(
    trainer: str, split: Folders, request: LabellingRequest, plans: Plans, options: Distillation
) -> Target:
    """Return the training that follows; by default that of the first base, on every fold."""
    base_plans = str(request.trained[0].plans["plans_name"])
    first_seed, _ = split_seed_name(base_plans)  # options.seeds decides which are trained
    name = options.target_plans or (first_seed if first_seed in plans else base_plans)
    configuration = options.configuration(request)
    folds = options.folds or [*map(str, range(count_dataset_folds(split)))] or [ALL]
    has_plans = name in plans
    stages = list_cascade_stages(plans[name], configuration) if has_plans else (configuration,)
    return Target(trainer, name, stages, tuple(folds), options.seeds)


# ---- checks of the options ----


def find_option_problems(
    new_id: int, base: Sequence[str], options: Distillation
) -> Iterator[Problem]:
    """Yield a problem for every option that is wrong for any data."""
    problems = list[Problem]()
    with collect_errors(problems, "--confidence"):
        require_confidence(options.confidence)
    yield from problems
    needs_target = {
        "--rounds": options.rounds != 1, "--target-folds": options.folds,
        "--seeds": options.seeds != 1, "--dry-run": options.dry_run,
    }  # fmt: skip
    for option, is_given in needs_target.items():
        if is_given and options.target is None:
            yield Problem(option, "is of the target, and there is none", "add --target TRAINER")
    yield from below_one(
        {"--rounds": options.rounds, "--seeds": options.seeds, "--jobs": options.jobs}
    )
    if not all(keep > 0 for keep in options.keep):
        yield Problem("--keep", f"must be above 0, got {min(options.keep):g}", "correct it")
    if len(options.keep) not in (1, options.rounds):
        message = f"must be one value, or one for each of the {options.rounds} rounds, got"
        yield Problem("--keep", f"{message} {len(options.keep)}", "correct it, or --rounds")
    score = options.score
    if score in COMPARISON_SCORES and options.rounds > 1 and not options.before:
        score = "entropy"  # of the first round; later rounds compare with earlier ones
    yield from find_score_problems(score, options.before, len(base))
    if options.score == "disagreement" and options.rounds > 1 and options.seeds < 2:
        message = "needs several models, from round 2 on the target's seeds: 1"
        yield Problem("--score disagreement", message, "--seeds 2, or --score entropy")
    if not 1 <= new_id <= 1000 - options.rounds:
        numbers = f"{new_id} to {new_id + options.rounds - 1}"
        yield Problem(
            "--new-id", f"a data set has a number from 1 to 999, got {numbers}", "correct it"
        )
