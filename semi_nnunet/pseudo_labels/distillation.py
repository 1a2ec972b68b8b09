"""Distil: models label the pool, the surest cases become training cases, a target is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semi_nnunet.data.integrity import cases_in
from semi_nnunet.data.layout import (
    SKIPPED_FILE,
    UNLABELLED_IMAGES,
    preprocessed_dataset,
    raw_dataset,
    require_paths,
    set_aside,
)
from semi_nnunet.data.patients import patient_finder
from semi_nnunet.data.prepare import verify
from semi_nnunet.deploy.trained import find_models, require_models_of
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.pseudo_labels.choice import Choice, score_problems
from semi_nnunet.pseudo_labels.distilled_dataset import (
    folds_of,
    known_plans,
    partial_cases,
    plans_problems,
    require_folders,
    stages_of,
    without,
    write_distilled,
    write_folds,
    write_plans,
    write_pseudo_labelled,
)
from semi_nnunet.pseudo_labels.label import label_pool, require_confidence
from semi_nnunet.pseudo_labels.places import adopt_labels, completed_labels, labelled_pool
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.pseudo_labels.rounds import (
    Options,
    Target,
    commands,
    dice_of_test_cases,
    new_data_sets,
    number_of,
    plan_rounds,
    pool_problems,
    preprocess,
    split_of,
    target_problems,
)
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.folders import ALL, Folders
from semi_nnunet.runs.folds import number_of_folds
from semi_nnunet.runs.launching import Launcher, UnfinishedError, find_resources
from semi_nnunet.runs.next_step import device_option
from semi_nnunet.runs.seeds import unseeded
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import Problem, collect_errors, raise_if_any
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import below_one

REFUSED = "distil cannot start:"
Plans = Mapping[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a data set is distilled: by which models, from which images, for which training.

    Args:
        name: of the new data set; None: the old name and "Distilled".
        views: test-time views to average.
        keep: a fraction of the cases (at most 1), or a number (above 1), the surest; one value, or
            one for each round.
        most: an uncertainty above which none is taken, or None.
        score: by which the surest are chosen, one of :data:`~.settings.common.FILTER_SCORES`.
        before: folders in which the same images were labelled earlier, the oldest first.
        complete: the models also label what labelled cases do not annotate; these cases are in no
            validation.
        confidence: a voxel whose label is less probable gets nnU-Net's ignore label, in [0, 1).
        target: trainer that is trained on the new data set; None: none is.
        target_plans: that the new data set takes over; None: the first base's where there is a
            target, else it is planned anew.
        target_configuration: None: the first base's.
        rounds: of labelling and training.
        folds: of the target; None: every one.
        seeds: of the target, how many.
        dry_run: print the commands of the rounds and run none.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one.
        jobs: at a time; None: one for each GPU, one on the CPU.
        processes: that check the files.
        skip_bad: leave bad unlabelled images out.
        symlink: link to the files instead of copying them.
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
    def choice(self) -> Choice:
        """The choice of cases in the first round."""
        return Choice(self.keep[0], self.most, self.score, tuple(self.before)).located()

    def configuration(self, request: Request) -> str:
        """The configuration that is trained: as asked for, or the first base's."""
        return str(self.target_configuration or request.trained[0].configuration)


@dataclass(frozen=True)
class Distilled:
    """The data set that a distillation made.

    Args:
        folders: raw data sets, one for each round.
        labelled, pseudo_labelled: how many cases of each kind the data set has; 0 with a target.
        following: the commands that train on it, where there is no target.
        dice: of a target: "--base" and data set -> mean Dice of imagesTs, where it was measured.
    """

    folders: tuple[Path, ...]
    labelled: int = 0
    pseudo_labelled: int = 0
    following: tuple[Command, ...] = ()
    dice: dict[str, float] = field(default_factory=dict)


def distil(
    dataset: str, new_id: int, base: Sequence[str], how: Distillation | None = None
) -> Distilled:
    """Make a data set of labelled and pseudo-labelled cases, that any trainer can train on.

    With a target, that trainer is then trained on it, and with rounds it labels the pool anew for
    the next one. What is done is kept, so that calling it again goes on.

    Args:
        dataset: number or name of the data set with imagesUn.
        new_id: number of the new one, from 1 to 999; those of further rounds follow.
        base: models that label, see :func:`~.label.pseudo_label`.
        how: everything else; None: the defaults.

    Returns:
        The new data sets, and what follows.

    Raises:
        UnfinishedError: labelling failed; why was printed.
        UserError: naming all that is wrong before anything is done, or what failed.
    """
    how = how or Distillation()
    require_paths(*(() if how.target else ("raw", "preprocessed")))
    wrong = [*option_problems(new_id, base, how)]
    with collect_errors(wrong, "-d"):
        source = raw_dataset(dataset)
        require_folders(source)
        name = how.name or f"{source.name.split('_', 1)[-1]}Distilled"
        if not any(one.where == "-o" for one in wrong):
            with collect_errors(wrong, "-o"):
                raws = new_data_sets(source.parent, new_id, name, how.rounds)
    with collect_errors(wrong, "-m"):
        find_models(base)
    with collect_errors(wrong, "--device"):
        find_resources(how.device, how.jobs)
    raise_if_any(REFUSED, wrong)
    request = Request(
        source / UNLABELLED_IMAGES, labelled_pool(raws[0]), tuple(base), tuple(how.views),
        how.confidence,
    )  # fmt: skip
    require_models_of(request.trained, read_json(source / "dataset.json"), source.name)
    partly = partial_cases(source) if how.complete else ()
    plans = known_plans(preprocessed_dataset(source.name), request.trained)
    if how.target is not None:
        return follow(dataset, source, raws, request, plans, how, how.target)
    named = how.target_plans or str(request.trained[0].plans["plans_name"])
    raise_if_any(REFUSED, plans_problems(named, how.configuration(request), plans))
    return write(source, raws[0], request, plans, how, partly)


# ---- one data set ----


def write(
    source: Path,
    raw: Path,
    request: Request,
    plans: Plans,
    how: Distillation,
    partly: Collection[str],
) -> Distilled:
    """Label the pool, complete the labels of the cases ``partly``, write the data set ``raw``."""
    description = read_json(source / "dataset.json")
    labelled = list(cases_in(source / "imagesTr", description["file_ending"]))
    patient_of = patient_finder(description)
    of_source = folds_of(preprocessed_dataset(source.name), labelled, patient_of)
    _, bad = verify(source, how.processes, how.skip_bad)
    skipped = {*bad, *left_out(source)}
    launcher = Launcher(device=how.device, jobs=how.jobs)
    adopt_labels(request, source)
    pool = label_pool(request, launcher)
    if pool is None or not pool.cases:
        raise UnfinishedError("no image is labelled. Fix: see above")
    completed = dict[str, Path]()
    if partly:
        of_people = replace(
            request, images=source / "imagesTr", out=completed_labels(raw),
            complete=source / "labelsTr",
        )  # fmt: skip
        done = label_pool(of_people, launcher)
        if done is None or {*partly} - {*done.cases}:
            raise UnfinishedError("not every label is completed. Fix: see above")
        completed = {case: of_people.label_of(case) for case in partly}
    taken = write_distilled(source, raw, request, how.choice, how.symlink, skipped, completed)
    preprocessed, name = preprocessed_dataset(raw.name), how.target_plans
    of_models = {*taken, *completed}
    folds = write_folds(without(of_source, completed), preprocessed, of_models, patient_of)
    write_pseudo_labelled(preprocessed, of_models)
    if name:
        write_plans(raw, preprocessed, name, plans[name], how.processes)
    of_target = plans[name] if name else request.trained[0].plans
    stages = stages_of(of_target, how.configuration(request))
    following = what_follows(raw, name, stages, [*map(str, range(folds))] or [ALL])
    counts = len(labelled) - len(completed), len(of_models)
    return Distilled((raw,), *counts, following)


def left_out(source: Path) -> set[str]:
    """The unlabelled cases that ``semi_nnunet preprocess`` has set aside, which are named."""
    preprocessed = preprocessed_dataset(source.name)
    found = set(set_aside(preprocessed))
    if found:
        path = preprocessed / SKIPPED_FILE
        print(f"left out {len(found)} unlabelled cases that preprocess set aside: {path} says why")
    return found


def what_follows(
    raw: Path, plans: str | None, configurations: Sequence[str], folds: Sequence[str]
) -> tuple[Command, ...]:
    """The commands that train on the new data set; a cascade's second stage needs every fold."""
    number, option = number_of(raw), ("-p", plans) if plans else ()
    train: Command = ("nnUNetv2_train", number, *configurations, folds[0], *option)
    train = (*train, *device_option())
    if len(configurations) > 1:
        train = ("semi_nnunet", "crossval", "-d", number, *option, "-c", *configurations)
        train = (*train, "-tr", BASELINE, "-f", *folds)  # nnU-Net's predicts too few
    return preprocess(number, plans, configurations), train


# ---- rounds ----


def follow(
    dataset: str,
    source: Path,
    raws: Sequence[Path],
    request: Request,
    plans: Plans,
    how: Distillation,
    trainer: str,
) -> Distilled:
    """Label and train in rounds; says at last what the test cases say of each."""
    split = split_of(source)
    target = target_of(trainer, split, request, plans, how)
    rounds = plan_rounds(raws, request.models, target, how.keep, how.choice, len(request.cases))
    raise_if_any(REFUSED, [*target_problems(target, plans, split), *pool_problems(target, rounds)])
    options = options_of(dataset, how)
    run_stages(
        (
            (f"round {number} of {len(rounds)}: {stage}", words)
            for number, one in enumerate(rounds, start=1)
            for stage, words in commands(one, target, options)
        ),
        how.dry_run,
    )
    if how.dry_run:
        return Distilled(tuple(raws))
    measured = {"--base": request.models, **{raw.name: target.models(raw.name) for raw in raws}}
    dice = {name: dice_of_test_cases(models) for name, models in measured.items()}
    return Distilled(tuple(raws), dice={name: one for name, one in dice.items() if one is not None})


def target_of(
    trainer: str, split: Folders, request: Request, plans: Plans, how: Distillation
) -> Target:
    """The training that follows: as asked for, or as the first base, on every fold."""
    own = str(request.trained[0].plans["plans_name"])
    first, _ = unseeded(own)  # how.seeds says which are trained
    name = how.target_plans or (first if first in plans else own)
    configuration = how.configuration(request)
    folds = how.folds or [*map(str, range(number_of_folds(split)))] or [ALL]
    stages = stages_of(plans[name], configuration) if name in plans else (configuration,)
    return Target(trainer, name, stages, tuple(folds), how.seeds)


def options_of(dataset: str, how: Distillation) -> Options:
    """The options of every round, as they are typed."""
    labelling = ["--views", *how.views] if how.views else []
    labelling += ["--confidence", str(how.confidence)] if how.confidence else []
    labelling += ["--complete"] if how.complete else []
    labelling += ["--skip-bad"] if how.skip_bad else []
    labelling += ["--symlink"] if how.symlink else []
    device = ["--device", how.device] if how.device else []
    device += ["--jobs", str(how.jobs)] if how.jobs else []
    return Options(dataset, tuple(labelling), tuple(device), how.processes)


# ---- what can be known before anything is done ----


def option_problems(new_id: int, base: Sequence[str], how: Distillation) -> Iterator[Problem]:
    """Options that are wrong whatever the data are."""
    unlikely = list[Problem]()
    with collect_errors(unlikely, "--confidence"):
        require_confidence(how.confidence)
    yield from unlikely
    needs_target = {
        "--rounds": how.rounds != 1, "-f": how.folds, "--seeds": how.seeds != 1,
        "--dry-run": how.dry_run,
    }  # fmt: skip
    for option, given in needs_target.items():
        if given and how.target is None:
            yield Problem(option, "is of the target, and there is none", "add --target TRAINER")
    yield from below_one({"--rounds": how.rounds, "--seeds": how.seeds, "--jobs": how.jobs})
    if not all(keep > 0 for keep in how.keep):
        yield Problem("--keep", f"must be above 0, got {min(how.keep):g}", "correct it")
    if len(how.keep) not in (1, how.rounds):
        what = f"must be one value, or one for each of the {how.rounds} rounds, got"
        yield Problem("--keep", f"{what} {len(how.keep)}", "correct it, or --rounds")
    first_has_none = how.rounds > 1 and not how.before  # those after it have the ones before
    yield from score_problems("entropy" if first_has_none else how.score, how.before)
    if how.score == "disagreement":
        yield from disagreement_problems(base, how)
    if not 1 <= new_id <= 1000 - how.rounds:
        numbers = f"{new_id} to {new_id + how.rounds - 1}"
        yield Problem("-o", f"a data set has a number from 1 to 999, got {numbers}", "correct it")


def disagreement_problems(base: Sequence[str], how: Distillation) -> Iterator[Problem]:
    """Rounds in which a single model labels."""
    where = "--score disagreement"
    if len(base) < 2:
        fix = "add a model to --base, or --score entropy"
        yield Problem(where, "'disagreement' needs several models, --base is one", fix)
    if how.rounds > 1 and how.seeds < 2:
        what = "'disagreement' needs several models, from round 2 on the target's seeds: 1"
        yield Problem(where, what, "--seeds 2, or --score entropy")
