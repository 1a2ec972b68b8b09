"""Measure trainers: the time, operations and memory of steps, loading, and a prediction."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.benchmarking.work import (
    Work,
    describe_failure,
    silent_scratch_results,
    start_trainer,
)
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.precision import compute_dtype
from semi_nnunet.training.prediction import ready_to_predict
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.machine import torch_threads
from semi_nnunet.util.timing import Seconds, in_turn

MIB = 2**20
FLOOR = "labelled forward and backward pass"
MEMORY_STEPS, BATCHES = 4, 20
FEW_BATCHES = 5  # whose loading is timed in a quick benchmark
MAX_CASES = 25  # looked at to find a case of median size
CLEAR_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

# ---- steps of several trainers in one process ----


@dataclass(frozen=True)
class StepTimes:
    """Measurements of the steps of trainers.

    Args:
        seconds: of a step of each trainer, and of the :data:`FLOOR`.
        operations: floating-point operations of these, where they can be counted.
        loading: seconds per batch of trainers whose loading was measured.
        starts: seconds until the end of the first step.
        patches: loaded for a step, labelled and unlabelled.
        case: seconds to predict a case, if measured.
        refused: trainer -> why it could not be measured.
    """

    seconds: dict[str, Seconds] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    patches: dict[str, int] = field(default_factory=dict)
    case: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def updated(self, later: StepTimes) -> StepTimes:
        """Return these times with later measurements instead of earlier ones and refusals."""
        merged: dict[str, Any] = {
            item.name: {**getattr(self, item.name), **getattr(later, item.name)}
            for item in fields(self)
            if item.name != "case"
        }
        refused = merged.pop("refused").items()
        refused = {name: reason for name, reason in refused if name not in later.seconds}
        return StepTimes(**merged, refused=refused, case=later.case or self.case)


def time_steps(work: Work, names: Sequence[str], quick: bool = False) -> StepTimes:
    """Time a step of every trainer in turn, round after round, so that drift affects all equally.

    Args:
        work: of the benchmark.
        names: of the trainers; the floor and a case are measured with the baseline, if it is one.
        quick: also measure loading here, and count no operations.
    """
    times = StepTimes()
    trainers, batches = dict[str, Any](), dict[str, Any]()
    with torch_threads(work.threads), silent_scratch_results():
        if not quick:
            with variable("nnUNet_n_proc_DA", "0"):
                times.operations.update(count_operations(work, names))
        for name in names:  # loading processes are started before any thread computes
            began = time.perf_counter()
            try:
                with nullcontext() if quick else variable("nnUNet_n_proc_DA", "0"):
                    trainers[name] = start_trainer(work, name)
                batches[name] = next(trainers[name].dataloader_train)
                times.patches[name] = count_patches(batches[name])
                times.starts[name] = time.perf_counter() - began
                if quick:
                    loader = trainers[name].dataloader_train
                    times.loading[name] = measure_batch_seconds(loader, FEW_BATCHES)
                    close_loaders(loader, trainers[name].dataloader_val)
            except (UserError, RuntimeError, MemoryError) as error:
                trainers.pop(name, None)
                times.refused[name] = describe_failure(error)
        tasks: dict[str, Callable[[], Any]] = {}
        cycles = {name: count_cycle_steps(trainer) for name, trainer in trainers.items()}
        for name, trainer in trainers.items():
            tasks[name], began = partial(run_cycle, trainer, batches[name]), time.perf_counter()
            try:
                trainer.train_step(batches[name])
            except (UserError, RuntimeError, MemoryError) as error:
                del tasks[name]
                times.refused[name] = describe_failure(error)
                continue
            times.starts[name] += time.perf_counter() - began
            if name == BASELINE:
                tasks[FLOOR] = partial(run_labelled_pass, trainer, batches[name])
        seconds = in_turn(tasks, work.rounds, torch.device(work.device))
        times.seconds.update(
            {name: value.divided_by(cycles.get(name, 1)) for name, value in seconds.items()}
        )
        if BASELINE in tasks:
            return replace(times, case=measure_case_seconds(trainers[BASELINE]))
    return times


def count_cycle_steps(trainer: nnUNetTrainer) -> int:
    """Return the steps after which the work of a trainer repeats; nnU-Net's own: 1."""
    return int(getattr(trainer, "steps_in_cycle", 1))


def run_cycle(trainer: nnUNetTrainer, batch: Any) -> None:
    """Run the steps after which the work of a trainer repeats."""
    for _ in range(count_cycle_steps(trainer)):
        trainer.train_step(batch)


def count_patches(batch: Any) -> int:
    """Return how many patches a batch has, in all streams."""
    if isinstance(batch, dict):  # of nnU-Net's trainer
        return len(batch["data"])
    return sum(len(stream["data"]) for streams in batch for stream in streams.values())


def close_loaders(*loaders: Any) -> None:
    """End the processes of loaders, ours or nnU-Net's."""
    for loader in loaders:
        close = getattr(loader, "close", None) or getattr(loader, "_finish", None)
        if close is not None:  # None if it loads in this process
            close()


def run_labelled_pass(trainer: SemiTrainer, batch: Batches) -> None:
    """Run forward and backward pass of the network on the labelled patches, with nnU-Net's loss."""
    labelled, _ = trainer.on_device(batch[0])
    trainer.optimizer.zero_grad(set_to_none=True)
    dtype = compute_dtype(trainer.settings.mixed_precision, trainer.device)
    with nullcontext() if dtype is None else torch.autocast(trainer.device.type, dtype):
        loss = trainer.loss(trainer.network(labelled.x), labelled.target)
    (loss if trainer.grad_scaler is None else trainer.grad_scaler.scale(loss)).backward()


def count_operations(work: Work, names: Sequence[str]) -> dict[str, float]:
    """Count the floating-point operations of a step of each trainer built on ours, and the floor.

    PyTorch counts them on its device without values ("meta"), where a step takes no time. Steps
    that need values cannot be counted, such as those of nnU-Net's own trainer.
    """
    operations: dict[str, float] = {}
    ours = our_trainers()
    with variable("nnUNet_compile", "f"):
        for name in (name for name in names if name in ours):
            try:
                meta = replace(work, device="meta")
                trainer = start_trainer(meta, name, mixed_precision="none")
                batch = next(trainer.dataloader_train)
                trainer.non_finite.at_once = False
                trainer.train_step(batch)  # the first step of an epoch has more operations
                cycle = count_flops(partial(run_cycle, trainer, batch))
                operations[name] = cycle / count_cycle_steps(trainer)
                if name == BASELINE:
                    operations[FLOOR] = count_flops(partial(run_labelled_pass, trainer, batch))
            except (UserError, RuntimeError, TypeError):
                continue  # time_steps reports a mistake; a step may read values, which meta lacks
    return operations


def count_flops(task: Callable[[], Any]) -> float:
    """Return the floating-point operations of a task.

    >>> count_flops(lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    48.0
    """
    with FlopCounterMode(display=False) as counter:
        task()
    return float(counter.get_total_flops())


# ---- memory and loading of one trainer in a process of its own ----


@dataclass(frozen=True)
class MemoryAndLoading:
    """The memory and the loading of a trainer, measured in a process of its own.

    Args:
        mib: peak memory of the steps, of the GPU, or of this process above the level before them;
            ``None`` where the system does not report it.
        loading: seconds per batch of labelled and unlabelled patches while nothing else runs, with
            as many processes as ``nnUNet_n_proc_DA`` says.
        refused: why the trainer could not be measured.
    """

    mib: float | None = None
    loading: float | None = None
    refused: str | None = None


def measure_memory_and_loading(work: Work, name: str) -> MemoryAndLoading:
    """Measure a trainer; nothing else may run in this process."""
    with torch_threads(work.threads), silent_scratch_results():
        try:
            trainer = start_trainer(work, name)
            memory = measure_step_memory(trainer)
            return MemoryAndLoading(memory, measure_batch_seconds(trainer.dataloader_train))
        except (UserError, RuntimeError, MemoryError) as error:
            return MemoryAndLoading(refused=describe_failure(error))


def measure_step_memory(trainer: nnUNetTrainer) -> float | None:
    """Return the peak memory of some steps in MiB."""
    batch = next(trainer.dataloader_train)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    initial = psutil.Process().memory_info().rss
    with suppress(OSError):
        CLEAR_PEAK.write_text("5", encoding="utf-8")
    for _ in range(MEMORY_STEPS):
        trainer.train_step(batch)
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    peak = read_peak_memory()
    return None if peak is None else (peak - initial) / MIB


def read_peak_memory() -> int | None:
    """Return the peak resident memory in bytes since the peak was last cleared."""
    with suppress(OSError):
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def measure_batch_seconds(loader: Iterator[Any], batches: int = BATCHES) -> float:
    """Return the seconds that a loader needs per batch, after its batches in stock are used up."""
    for _ in range(2 * get_allowed_n_proc_DA() + 2):
        next(loader)
    began = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return (time.perf_counter() - began) / batches


# ---- prediction of a case ----


def measure_case_seconds(trainer: SemiTrainer) -> float:
    """Return the seconds to predict a labelled case of median size, with mirrored images.

    A whole volume may take hours on a CPU, so one pass is timed and multiplied by the tiles and
    mirrored images. Resampling and writing the labels are timed completely. nnU-Net can do these in
    other processes during the passes, so that the result is rather too high.

    Args:
        trainer: of fold "all", from :func:`~semi_nnunet.benchmarking.work.start_trainer`.
    """
    shape, properties = find_median_case(trainer)
    network, axes = trainer.bare_network, trainer.inference_allowed_mirroring_axes or ()
    predictor = trainer.predictor.nnunet_predictor(network, mirror=bool(axes))
    patch = trainer.configuration_manager.patch_size
    padded = [*shape[: -len(patch)], *map(max, shape[-len(patch) :], patch)]
    tiles = len(predictor._internal_get_sliding_window_slicers(tuple(padded)))
    x = torch.zeros((1, trainer.num_input_channels, *patch), device=trainer.device)
    half = torch.autocast("cuda") if trainer.device.type == "cuda" else nullcontext()
    with ready_to_predict(network), torch.inference_mode(), half:
        times = in_turn({"pass": partial(network, x)}, 2, trainer.device, uncounted=1)
    passes = times["pass"].median * tiles * 2 ** len(axes)
    return passes + measure_export_seconds(trainer, shape, properties)


def find_median_case(trainer: SemiTrainer) -> tuple[list[int], dict[str, Any]]:
    """Return the shape in voxels and nnU-Net's properties of a labelled case of median size."""
    names = trainer.labelled_identifiers()
    names = names[:: math.ceil(len(names) / MAX_CASES)]
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, names)
    shapes = {name: list(cases.load_case(name)[0].shape[1:]) for name in names}
    middle = sorted(names, key=lambda name: math.prod(shapes[name]))[len(names) // 2]
    return shapes[middle], cases.load_case(middle)[3]


def measure_export_seconds(
    trainer: SemiTrainer, shape: list[int], properties: dict[str, Any]
) -> float:
    """Return the seconds to resample the logits of a case to its image and to write its labels."""
    from nnunetv2.inference.export_prediction import export_prediction_from_logits

    logits = torch.zeros((trainer.label_manager.num_segmentation_heads, *shape))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        export_prediction_from_logits(
            logits, properties, trainer.configuration_manager, trainer.plans_manager,
            trainer.dataset_json, str(Path(folder) / "case"),
        )  # fmt: skip
        return time.perf_counter() - began
