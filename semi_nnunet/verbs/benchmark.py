"""``semi_nnunet benchmark``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal

from semi_nnunet.discovery.names import DEFAULT_PLANS
from semi_nnunet.verbs.options import (
    MORE,
    Configuration,
    Dataset,
    Flag,
    OutputFile,
    Plans,
    Trainers,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.benchmarking.run import Measured

logger = logging.getLogger(__name__)


def benchmark(
    dataset: Dataset,
    configuration: Configuration,
    *,
    plans: Plans = DEFAULT_PLANS,
    trainers: Trainers = None,
    device: Annotated[Literal["cpu", "cuda"] | None, option("--device", "-device")] = None,
    threads: Annotated[int | None, option(group=MORE)] = None,
    steps: Annotated[int, option(group=MORE)] = 9,
    quick: Flag = False,
    out: OutputFile = None,
) -> Measured:
    """Measure the cost of a training step on this machine: time, operations, loading, memory.

        semi_nnunet benchmark -d 42 -c 3d_fullres
        semi_nnunet benchmark -d 42 -c 2d -p nnUNetPlans_cpu -tr SemiUnifiedTrainer -o costs.json

    In one process, all our trainers and nnU-Net's own take turns to make a step on patches of the
    data set, --steps times. The table shows medians and the middle half of the steps. Unlabelled
    terms have their full weight from the first step. "/ its passes" divides the step by the time
    that its floating-point operations take at the speed of the baseline's forward and backward
    pass: what exceeds 1 is not spent in the networks. Patches a second count labelled and
    unlabelled ones. Loading and memory are measured in a process for each trainer: seconds that
    nnUNet_n_proc_DA processes need for a batch, which the step hides if it takes longer, and
    memory above the level before the first step (on a GPU: all of it). The seconds are kept in the
    results of the data set, where semi_nnunet auto finds them.

    Args:
        dataset: Number or name of the data set, which is preprocessed.
        configuration: Such as 3d_fullres.
        plans: Plans identifier.
        trainers: Trainers to measure (default: all of ours, and nnUNetTrainer). The baseline is
            always measured.
        device: Device of the steps (default: cuda if there is a GPU).
        threads: Threads of PyTorch on the CPU (default: this machine's cores).
        steps: Steps of every trainer, two or more.
        quick: Measure seconds only, no memory and no operations.
        out: New JSON file for all measurements.

    Returns:
        The costs, and why some trainers could not be measured.

    Raises:
        UserError: the data set, plans, configuration, device or a trainer does not exist, a number
            is too small, ``out`` cannot be written or exists, or not even the baseline can be
            measured.
    """
    from semi_nnunet.benchmarking.run import describe_costs, measure_steps

    measured = measure_steps(
        dataset,
        configuration,
        plans=plans,
        trainers=trainers,
        device=device,
        threads=threads,
        rounds=steps,
        quick=quick,
        out=out,
    )
    logger.info("\n".join(describe_costs(measured)))
    return measured


def has_failed(result: Measured) -> bool:
    """Return whether some trainers could not be measured."""
    return bool(result.refused)
