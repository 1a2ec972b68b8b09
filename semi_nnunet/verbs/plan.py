"""``semi_nnunet plan``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from semi_nnunet.discovery.names import DEFAULT_PLANS, RECOMMENDED
from semi_nnunet.util.arguments import AlsoInPython
from semi_nnunet.verbs.options import (
    MORE,
    Configurations,
    Dataset,
    Flag,
    Plans,
    RareFlag,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.util.errors import Problem
    from semi_nnunet.workflows.plan import WrittenPlans

logger = logging.getLogger(__name__)


def plan(
    dataset: Dataset,
    *,
    plans: Plans = DEFAULT_PLANS,
    settings: Annotated[Sequence[str], option("--set", several=True), AlsoInPython(Mapping)] = (),
    budget: Annotated[str | None, option()] = None,
    new_plans: Annotated[str | None, option()] = None,
    reset: Flag = False,
    configurations: Configurations = None,
    patch: Annotated[Sequence[int] | None, option(several=True, group=MORE)] = None,
    spacing: Annotated[Sequence[float] | None, option(several=True, group=MORE)] = None,
    architecture: Annotated[str | None, option(group=MORE)] = None,
    encoder: Annotated[str, option(group=MORE)] = "resnet34",
    encoder_weights: Annotated[str, option(group=MORE)] = "none",
    like: Annotated[str | None, option()] = None,
    device: Annotated[str, option("--device", "-device", group=MORE)] = "cpu",
    trainers: Annotated[Sequence[str], option("-tr", several=True, group=MORE)] = (),
    as_long_as: Annotated[str | None, option(group=MORE)] = None,
    all: RareFlag = False,
) -> WrittenPlans:
    """Write the semi-supervised settings into the plans, and print each with its reason.

        semi_nnunet plan -d 42
        semi_nnunet plan -d 42 --set epochs=300 SemiMeanTeacherTrainer.consistency_weight=5
        semi_nnunet plan -d 42 --new-plans nnUNetPlans_again --set seed=1
        semi_nnunet plan -d 42 --budget cpu
        semi_nnunet plan -d 42 --patch 80 112 112 --set labelled_batch_size=4
        semi_nnunet plan -d 42 -c 2d --spacing 0.8 0.8 --budget cpu
        semi_nnunet plan -d 42 --architecture smp.Unet --encoder resnet50 --encoder-weights imagenet
        semi_nnunet plan -d 42 --like Dataset501_LA/nnUNetTrainer__nnUNetPlans__3d_fullres
        semi_nnunet plan -d 42 -tr SemiMeanTeacherTrainer

    The command prints the settings derived from this data set and the ones you set;
    settings of methods with -tr; everything, also nnU-Net's own values and all defaults, with
    --all. Without plan, a trainer derives the same values when a training starts.

    Planning again keeps settings given by --set or edited by hand, unless --reset is given, and
    the sizes measured for the same --budget, unless these plans are deleted first. Everything else
    is planned again. With --new-plans or --budget (nnUNetPlans_cpu: a small network, a short
    training), new plans are written next to the old ones. They use the same preprocessed data, with
    one exception: if the small patch of a --budget would show less than most of an image, images
    get coarser and need preprocessing again. They get only as coarse as the labels allow: resampled
    there and back, every class must keep a Dice of .95. The resulting Dice is printed below each
    network. --spacing sets the spacing by hand, also a coarser one. With --patch, new plans
    (nnUNetPlans_80x112x112) have the patch of a publication and the network that nnU-Net plans for
    it. With --architecture, they have a network of segmentation-models-pytorch (2d), of MONAI, or
    Primus (3d). With --like, they have one configuration with the spacing, patch, normalisation and
    network of a trained model, from whose weights every trainer then starts (setting pretrained). A
    table shows which weights are taken.

    If `dataset.json` names domains, such as scanners, a line for each has its numbers of cases and
    the distance of its images from the labelled ones.

    Args:
        dataset: Number or name of the data set, which is preprocessed.
        plans: Plans to start from.
        settings: KEY=VALUE, where KEY may be CONFIG.KEY, TRAINER.KEY or TRAINER.CONFIG.KEY. In
            Python also a dictionary.
        budget: "cpu", or seconds for each supervised step, to which network, patch, batch and
            length are reduced.
        new_plans: Write new plans with this name.
        reset: Forget settings that were given or edited before.
        configurations: Print (with --patch, --spacing, --architecture, --like: change) only these.
        patch: Edges in voxels, in the order of the plans (2d: two numbers, else three).
        spacing: Millimetres, in the order of the plans (2d: two numbers, else three).
        architecture: Such as smp.Unet, monai.SegResNet, primus.S.
        encoder: Encoder of smp's networks.
        encoder_weights: Initial weights of smp's encoder: imagenet, a file, or none.
        like: A trained model of nnU-Net or of this package (its folder, a fold, or a checkpoint),
            or a checkpoint of nnssl.
        device: Device to measure --budget SECONDS on.
        trainers: Print the settings of these methods, too.
        as_long_as: Write plans with which the baseline trains as long as this method does, by the
            recorded or benchmarked seconds of a step (crossval --equal-time does that by itself).
        all: Print every setting of every trainer.

    Returns:
        The plans, and every setting with its reason.

    Raises:
        UserError: a name, setting, patch or network does not exist or does not fit.

    Example:
        >>> short = {"epochs": 1, "steps_per_epoch": 2, "validation_steps_per_epoch": 1}
        >>> short["mirror"] = True
        >>> plan("42", new_plans="short", settings=short).name
        'short'
    """
    if as_long_as:
        from semi_nnunet.runs.longer_baseline import name_longer_plans

        settings = choose_length(dataset, plans, configurations, as_long_as, settings)
        new_plans = new_plans or name_longer_plans(plans, as_long_as)
    from semi_nnunet.planning.shown import (
        format_all_settings,
        format_decided_settings,
        format_taken_weights,
    )
    from semi_nnunet.workflows.next_step import suggest_preprocessing, suggest_training
    from semi_nnunet.workflows.plan import plan_dataset

    planned = plan_dataset(
        dataset,
        plans=plans,
        name=new_plans,
        configurations=configurations,
        settings=settings,
        budget=budget,
        patch=patch,
        spacing=spacing,
        architecture=architecture,
        encoder=encoder,
        weights=encoder_weights,
        like=like,
        device=device,
        reset=reset,
        trainers=trainers,
    )
    lines: list[object] = []
    if planned.keeps_sizes:
        file = f"{planned.name}.json"
        lines += [
            f"{planned.name} keeps the sizes measured before (to measure again, delete {file})"
        ]
    if all:
        lines += format_all_settings(planned.rows, planned.configurations)
    else:
        lines += format_decided_settings(
            planned.rows, planned.configurations, trainers, batches_of=RECOMMENDED
        )
    if planned.taken:
        lines += ["", *format_taken_weights(planned.taken)]
    plans_option = "" if planned.name == DEFAULT_PLANS else f"; use it with -p {planned.name}"
    lines += ["", *planned.networks, *estimate_lengths(planned, dataset, trainers)]
    lines += [f"domain {domain}" for domain in planned.domains]
    logger.info("\n".join(map(str, lines)))
    for problem in find_warnings(planned, trainers):
        logger.warning(problem.as_warning())
    lines = [f"wrote {planned.path}{plans_option}"]
    if planned.coarser:
        command = suggest_preprocessing(dataset, planned.name, planned.coarser)
        lines += [f"next, as its images are preprocessed in another way: {command}"]
    elif planned.ready:
        lines += [f"next: {suggest_training(dataset, planned.name, planned.ready[0])[0]}"]
    else:
        lines += [f"next: {suggest_preprocessing(dataset, planned.name, planned.configurations)}"]
    logger.info("\n".join(map(str, lines)))
    return planned


def choose_length(
    dataset: str,
    plans: str,
    configurations: Sequence[str] | None,
    trainer: str,
    settings: Sequence[str] | Mapping[str, Any],
) -> list[str]:
    """Return the settings of plans with which the baseline trains as long."""
    from semi_nnunet.benchmarking.plan_length import plan_longer_baseline
    from semi_nnunet.settings.assignments import format_assignment

    longer = plan_longer_baseline(dataset, plans, configurations, trainer)
    given = settings if isinstance(settings, Mapping) else {}
    texts = [format_assignment(key, value) for key, value in {**given, **longer}.items()]
    return [*(() if given else settings), *texts]


def find_warnings(planned: WrittenPlans, trainers: Sequence[str]) -> list[Problem]:
    """Return a warning for each part of the preprocessed data that teaches nothing, each once."""
    from semi_nnunet.util.files import read_json
    from semi_nnunet.workflows.before_start import collect_warnings

    content, names = read_json(planned.path), trainers or (RECOMMENDED,)
    problems = [
        problem
        for configuration in planned.ready
        for problem in collect_warnings(planned.path.parent, content, configuration, names)
    ]
    return list(dict.fromkeys(problems))


def estimate_lengths(planned: WrittenPlans, dataset: str, trainers: Sequence[str]) -> Iterator[str]:
    """Yield the length of a training of each configuration, benchmarked or as earlier ones took."""
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.util.progress import readable_time

    try:
        folders = find_folders(dataset)
    except UserError:  # nnUNet_results is not set, and holds the benchmarks
        return
    if planned.ready and not any(folders.results.glob("*")):  # no training, no benchmark
        yield "the length of a training is known after semi_nnunet benchmark"
        return
    from semi_nnunet.automatic.rates import estimate_training_hours  # takes seconds
    from semi_nnunet.benchmarking.plan_length import read_recorded_rates
    from semi_nnunet.runs.trainings import find_jobs

    all_jobs = find_jobs(folders, planned.name)
    for configuration in planned.ready:
        jobs = [job for job in all_jobs if job.configuration == configuration]
        for trainer in trainers or (RECOMMENDED,):
            epochs, steps, validation_steps = (
                planned.find_value(trainer, configuration, setting)
                for setting in ("epochs", "steps_per_epoch", "validation_steps_per_epoch")
            )
            hours = estimate_training_hours(
                folders, planned.name, configuration, trainer, epochs * steps,
                validation_steps / steps,
            )  # fmt: skip
            recorded = read_recorded_rates(jobs, trainer)
            length = "unknown before semi_nnunet benchmark with these plans"
            if hours is not None:
                length = f"about {readable_time(3600 * hours)}"
            elif trainer in recorded:
                length = f"about {readable_time(recorded[trainer] * epochs * steps)}, as before"
            yield f"{configuration}: {epochs * steps:,} steps of {trainer} here: {length}"
