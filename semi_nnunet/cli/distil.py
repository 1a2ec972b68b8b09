"""Make a data set of labelled and pseudo-labelled cases, that any trainer can train on; train it.

    semi_nnunet distil -d 42 -o 142 --base Dataset042_Pancreas/MODEL --views flips gamma
    semi_nnunet distil -d 42 -o 142 --base MODEL OTHER_MODEL --score disagreement --keep 0.5
    semi_nnunet distil -d 42 -o 142 --base MODEL --confidence 0.8
    semi_nnunet distil -d 42 -o 142 --base MODEL --target SemiBaselineTrainer
    semi_nnunet distil -d 42 -o 142 --base MODEL --target nnUNetTrainer --rounds 2 --keep 0.5 1

The models label imagesUn (semi_nnunet pseudo-label): one model with several views is data
distillation, several models are model distillation. The surest cases become training cases of the
new data set, in no validation fold (the source's folds are taken over); the others stay unlabelled.
Voxels below --confidence get nnU-Net's ignore label.

With --target, that trainer is then trained, with the plans and the configuration of the first base
or others (of a cascade, both stages), and measured on imagesTs. With --rounds, all its folds and
seeds label imagesUn anew, for a target that starts from scratch: data sets 142, 143, ... Always the
labels of -d and its whole imagesUn are started from. --score change and checkpoints compare with
the rounds before; the first takes all if there is no --before. The commands are printed as they
could be typed. Run it again to go on.

Pseudo labels of a model that was trained on a fold's validation cases make that validation
optimistic, and so do all folds of a target together: compare such trainings on imagesTs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semi_nnunet.cli.launching import Launcher
    from semi_nnunet.pseudo_labels.pool import Request
    from semi_nnunet.pseudo_labels.rounds import Options, Target
    from semi_nnunet.runs.job import Folders
    from semi_nnunet.util.command import Command
    from semi_nnunet.util.errors import Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.cli.pseudo_label import CONFIDENCE
    from semi_nnunet.cli.select import add_score_arguments
    from semi_nnunet.pseudo_labels.test_time_augmentation import NAMES

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="the data set with imagesUn")
    add("-o", dest="new_id", type=int, required=True, metavar="NEW_ID", help="of the new one")
    add("--name", help="of the new one (default: the old name and Distilled)")
    add("--base", nargs="+", required=True, metavar="MODEL", help="see semi_nnunet pseudo-label")
    add("--views", nargs="+", default=[], choices=NAMES, metavar="VIEW", help=", ".join(NAMES))
    add("--keep", nargs="+", type=float, default=[1.0], metavar="K", help="fraction, or number "
        "above 1, of the cases: the surest; one value, or one for each round: ST++ takes half, "
        "then all (default: 1)")  # fmt: skip
    add_score_arguments(parser)
    add("--confidence", type=float, default=0.0, metavar="P", help=CONFIDENCE)
    add("--target", metavar="TRAINER", help="train it on the new data set (default: none)")
    add("--target-plans", metavar="PLANS", help="of -d or of a base, taken over by the new data "
        "set (default: the first base's with --target; else it is planned anew)")  # fmt: skip
    add("--target-configuration", metavar="CONFIG", help="default: the first base's")
    add("--rounds", type=int, default=1, help=f"of labelling and training ({default})")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="of the target (default: every fold)")
    add("--seeds", type=int, default=1, help=f"of the target, how many ({default})")
    add("--dry-run", action="store_true", help="print the commands")
    launching.add_device(parser)
    add("--jobs", type=int, help="at a time (default: one for each GPU; 1 on the CPU)")
    add("-np", dest="processes", type=int, default=2, help=f"that check the files ({default})")
    add("--skip-bad", action="store_true", help="leave bad unlabelled images out")
    add("--symlink", action="store_true", help="link to the files instead of copying them")


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.launching import Launcher, find_resources
    from semi_nnunet.data.layout import preprocessed_dataset, raw_dataset, require_paths
    from semi_nnunet.deploy.trained import require_models_of
    from semi_nnunet.pseudo_labels.distil import known_plans, plans_problems, require_folders
    from semi_nnunet.pseudo_labels.rounds import new_data_sets
    from semi_nnunet.util.files import read_json

    refuse(option_problems(args))
    require_paths(*(() if args.target else ("raw", "preprocessed")))
    source = raw_dataset(args.dataset)
    require_folders(source)
    name = args.name or f"{source.name.split('_', 1)[-1]}Distilled"
    raws = new_data_sets(source.parent, args.new_id, name, args.rounds)
    request = request_of(args, source, raws[0])
    require_models_of(request.trained, read_json(source / "dataset.json"), source.name)
    find_resources(args.device, args.jobs)  # raises where the device is not there
    plans = known_plans(preprocessed_dataset(source.name), request.trained)
    if args.target is not None:
        follow(args, source, raws, request, plans)
        return 0
    named = args.target_plans or str(request.trained[0].plans["plans_name"])
    refuse(plans_problems(named, configuration_of(args, request), plans))
    return write(
        args, source, raws[0], request, plans, Launcher(device=args.device, jobs=args.jobs)
    )


# ---- one data set ----


def write(
    args: argparse.Namespace,
    source: Path,
    raw: Path,
    request: Request,
    plans: Mapping[str, dict[str, Any]],
    launcher: Launcher,
) -> int:
    """Label the pool and write the data set ``raw``; returns the exit code."""
    from semi_nnunet.cli.pseudo_label import label_pool
    from semi_nnunet.cli.select import choice_of
    from semi_nnunet.data.integrity import cases_in
    from semi_nnunet.data.layout import preprocessed_dataset
    from semi_nnunet.data.patients import patient_finder
    from semi_nnunet.data.prepare import verify
    from semi_nnunet.pseudo_labels.distil import (
        folds_of,
        stages_of,
        write_distilled,
        write_folds,
        write_plans,
        write_pseudo_labelled,
    )
    from semi_nnunet.util.files import read_json

    description = read_json(source / "dataset.json")
    labelled = list(cases_in(source / "imagesTr", description["file_ending"]))
    patient_of = patient_finder(description)
    of_source = folds_of(preprocessed_dataset(source.name), labelled, patient_of)
    _, skipped = verify(source, args.processes, args.skip_bad)
    if code := label_pool(request, launcher):
        return code
    choice = choice_of(args, args.keep[0])
    taken = write_distilled(source, raw, request, choice, args.symlink, skipped)
    preprocessed, name = preprocessed_dataset(raw.name), args.target_plans
    folds = write_folds(of_source, preprocessed, taken, patient_of)
    write_pseudo_labelled(preprocessed, taken)
    if name:
        write_plans(raw, preprocessed, name, plans[name], args.processes)
    print(f"{raw}: {len(labelled)} labelled and {len(taken)} pseudo-labelled cases")
    of_target = plans[name] if name else request.trained[0].plans
    stages = stages_of(of_target, configuration_of(args, request))
    print_next(raw, name, stages, [*map(str, range(folds))] or ["all"])
    return 0


def print_next(
    raw: Path, plans: str | None, configurations: Sequence[str], folds: Sequence[str]
) -> None:
    """What to type to train on the new data set; a cascade's second stage needs every fold."""
    from semi_nnunet.pseudo_labels.rounds import number_of, preprocess
    from semi_nnunet.util.command import typed

    number, option = number_of(raw), ("-p", plans) if plans else ()
    print(f"next: {typed(preprocess(number, plans, configurations))}")
    train: Command = ("nnUNetv2_train", number, *configurations, folds[0], *option)
    if len(configurations) > 1:
        train = ("semi_nnunet", "crossval", "-d", number, *option, "-c", *configurations)
        train = (*train, "-tr", "SemiBaselineTrainer", "-f", *folds)  # nnU-Net's predicts too few
    print(f"      {typed(train)}")


def request_of(args: argparse.Namespace, source: Path, raw: Path) -> Request:
    """What the first round asks to be labelled."""
    from semi_nnunet.data.layout import UNLABELLED_IMAGES
    from semi_nnunet.pseudo_labels.pool import Request
    from semi_nnunet.pseudo_labels.rounds import labelled_pool

    out = labelled_pool(raw)
    images, models, views = source / UNLABELLED_IMAGES, tuple(args.base), tuple(args.views)
    return Request(images, out, models, views, args.confidence)


def configuration_of(args: argparse.Namespace, request: Request) -> str:
    """What is trained: what was asked for, or the first base's."""
    return str(args.target_configuration or request.trained[0].configuration)


# ---- rounds ----


def follow(
    args: argparse.Namespace,
    source: Path,
    raws: Sequence[Path],
    request: Request,
    plans: Mapping[str, dict[str, Any]],
) -> None:
    """Label and train in rounds; says at last what the test cases say of each."""
    from semi_nnunet.cli.select import choice_of
    from semi_nnunet.pseudo_labels.rounds import (
        commands,
        dice_of_test_cases,
        plan_rounds,
        pool_problems,
        split_of,
        target_problems,
    )
    from semi_nnunet.runs.commands import run_stages

    target = target_of(args, split_of(source), request, plans)
    asked = choice_of(args, args.keep[0])
    rounds = plan_rounds(raws, args.base, target, args.keep, asked, len(request.cases))
    refuse([*target_problems(target, plans, split_of(source)), *pool_problems(target, rounds)])
    options = options_of(args)
    run_stages(
        (
            (f"round {number} of {len(rounds)}: {stage}", words)
            for number, one in enumerate(rounds, start=1)
            for stage, words in commands(one, target, options)
        ),
        args.dry_run,
    )
    if args.dry_run:
        return
    measured = {"--base": args.base, **{raw.name: target.models(raw.name) for raw in raws}}
    for name, models in measured.items():
        dice = dice_of_test_cases(models)
        if dice is not None:
            print(f"{name}: Dice of imagesTs {dice:.4f}")


def target_of(
    args: argparse.Namespace,
    split: Folders,
    request: Request,
    plans: Mapping[str, dict[str, Any]],
) -> Target:
    """What is trained: what was asked for; else as the first base, on every fold."""
    from semi_nnunet.pseudo_labels.distil import stages_of
    from semi_nnunet.pseudo_labels.rounds import Target
    from semi_nnunet.runs.crossval import number_of_folds, unseeded
    from semi_nnunet.runs.job import ALL

    own = str(request.trained[0].plans["plans_name"])
    first, _ = unseeded(own)  # --seeds says which are trained
    name = args.target_plans or (first if first in plans else own)
    configuration = configuration_of(args, request)
    folds = args.folds or [*map(str, range(number_of_folds(split)))] or [ALL]
    return Target(
        args.target,
        name,
        stages_of(plans[name], configuration) if name in plans else (configuration,),
        tuple(folds),
        args.seeds,
    )


def options_of(args: argparse.Namespace) -> Options:
    """What is asked of every round, as it is typed."""
    from semi_nnunet.pseudo_labels.rounds import Options

    labelling = ["--views", *args.views] if args.views else []
    labelling += ["--confidence", str(args.confidence)] if args.confidence else []
    labelling += ["--skip-bad"] if args.skip_bad else []
    labelling += ["--symlink"] if args.symlink else []
    device = ["--device", args.device] if args.device else []
    device += ["--jobs", str(args.jobs)] if args.jobs else []
    return Options(args.dataset, tuple(labelling), tuple(device), args.processes)


# ---- what can be known before anything is done ----


def refuse(problems: Iterable[Problem]) -> None:
    """Raise all that is wrong, if anything is.

    Raises:
        UserError: something is.
    """
    from semi_nnunet.util.errors import UserError

    if listed := list(problems):
        raise UserError("distil cannot start:", listed)


def option_problems(args: argparse.Namespace) -> Iterator[Problem]:
    """Options that are wrong whatever the data are."""
    from semi_nnunet.cli.launching import below_one
    from semi_nnunet.cli.pseudo_label import require_confidence
    from semi_nnunet.pseudo_labels.choice import score_problems
    from semi_nnunet.util.errors import Problem

    require_confidence(args.confidence)
    needs_target = {
        "--rounds": args.rounds != 1, "-f": args.folds, "--seeds": args.seeds != 1,
        "--dry-run": args.dry_run,
    }  # fmt: skip
    for option, given in needs_target.items():
        if given and args.target is None:
            yield Problem(option, "is of the target, and there is none", "add --target TRAINER")
    yield from below_one({"--rounds": args.rounds, "--seeds": args.seeds, "--jobs": args.jobs})
    if not all(keep > 0 for keep in args.keep):
        yield Problem("--keep", f"must be above 0, got {min(args.keep):g}", "correct it")
    if len(args.keep) not in (1, args.rounds):
        what = f"must be one value, or one for each of the {args.rounds} rounds, got"
        yield Problem("--keep", f"{what} {len(args.keep)}", "correct it, or --rounds")
    first_has_none = args.rounds > 1 and not args.before  # those after it have the ones before
    yield from score_problems("entropy" if first_has_none else args.score, args.before)
    if args.score == "disagreement":
        yield from disagreement_problems(args)
    if not 1 <= args.new_id <= 1000 - args.rounds:
        numbers = f"{args.new_id} to {args.new_id + args.rounds - 1}"
        yield Problem("-o", f"a data set has a number from 1 to 999, got {numbers}", "correct it")


def disagreement_problems(args: argparse.Namespace) -> Iterator[Problem]:
    """Rounds in which a single model labels."""
    from semi_nnunet.util.errors import Problem

    where = "--score disagreement"
    if len(args.base) < 2:
        fix = "add a model to --base, or --score entropy"
        yield Problem(where, "'disagreement' needs several models, --base is one", fix)
    if args.rounds > 1 and args.seeds < 2:
        what = "'disagreement' needs several models, from round 2 on the target's seeds: 1"
        yield Problem(where, what, "--seeds 2, or --score entropy")
