"""The gradients of a step: averaged over processes, and the unlabelled one limited.

A loss term is back-propagated before the next one is computed, so the last pass of a step, and the
parameters that it reaches, are predicted from the step before. Every gradient is sent once a step,
bucket by bucket, in the same buckets and order whether during a pass or after it, so that results
do not depend on the timing. All processes have the same terms, and therefore send in the same
order.

An optimizer that normalises its steps (Adam), or a clipped gradient, follows the larger of two
gradients at any learning rate. If the unlabelled gradient is several times the supervised one, the
network fits its labelled patches later than it would without unlabelled images. The ratio was two
to four on left atria in 3-D, and about one on cardiac slices (docs/results/la_settings.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.step_records import StepRecords

BUCKET_BYTES = 25 * 2**20  # as PyTorch's DDP

Gradients = list[torch.Tensor | None]  # one for each parameter


class GradientAverage:
    """Averages the gradients of some networks.

    Args:
        networks: networks that take a gradient.
        processes: number of processes; nothing is sent if there is only one.
        bucket_bytes: approximate size of a message.
    """

    def __init__(
        self, networks: Sequence[nn.Module], processes: int, bucket_bytes: int = BUCKET_BYTES
    ):
        self.processes = processes
        self._parameters = [p for network in networks for p in network.parameters()]
        self._buckets = group_into_buckets(self._parameters, bucket_bytes) if processes > 1 else []
        self._running: GradientReduction | None = None  # of the expected last pass
        self._reached = set[int]()  # parameters reached by the current pass
        self._expected = set[int]()  # parameters reached by the last pass of the step before
        self._missing: list[int] = []  # number of expected parameters not yet reached, by bucket
        for number, bucket in enumerate(self._buckets):
            for index in bucket:
                hook = partial(self._on_gradient, number, index)
                self._parameters[index].register_post_accumulate_grad_hook(hook)

    def begin_pass(self, is_last: bool) -> None:
        """Announce a backward pass.

        Args:
            is_last: whether it is expected to be the last pass of the step. If another one follows,
                the gradients are sent again.
        """
        self._reached = set()
        self._discard_running()
        if is_last:
            self._running = self._new_reduction()
            self._missing = [len(self._expected & {*bucket}) for bucket in self._buckets]

    def _on_gradient(self, bucket: int, index: int, parameter: torch.Tensor) -> None:
        """Send the buckets that are complete now that a parameter has its gradient."""
        self._reached.add(index)
        if self._running is None:
            return
        if index not in self._expected:  # its bucket may have been sent already
            self._discard_running()
            return
        self._missing[bucket] -= 1
        while (sent := self._running.sent) < len(self._buckets) and not self._missing[sent]:
            self._running.send_next(self._gradients)

    def _discard_running(self) -> None:
        """Discard the gradients sent so far: the prediction was wrong, they are sent again."""
        if self._running is not None:
            self._running.wait()
            self._running = None

    def begin(self, gradients: Gradients) -> GradientReduction:
        """Start sending final gradients; they arrive while the step continues."""
        reduction = self._new_reduction()
        reduction.send_rest(gradients)
        return reduction

    def finish(self) -> None:
        """Average the accumulated gradients of the parameters in place."""
        reduction, self._running = self._running or self._new_reduction(), None
        self._expected = self._reached
        reduction.send_rest(self._gradients)
        reduction.average()

    @property
    def _gradients(self) -> Gradients:
        return [parameter.grad for parameter in self._parameters]

    def _new_reduction(self) -> GradientReduction:
        return GradientReduction(self._buckets, self.processes)


class GradientReduction:
    """The gradients of a step while they are sent, bucket after bucket.

    Args:
        buckets: indices of parameters, in the order in which they are sent.

    Attributes:
        sent: number of buckets sent.
    """

    def __init__(self, buckets: Sequence[Sequence[int]], processes: int):
        self.buckets, self.processes, self.sent = buckets, processes, 0
        self._messages: list[tuple[Any, torch.Tensor, list[torch.Tensor]]] = []

    def send_next(self, gradients: Gradients) -> None:
        """Send the next bucket. A missing gradient is missing on all processes."""
        bucket = [gradients[index] for index in self.buckets[self.sent]]
        present = [gradient for gradient in bucket if gradient is not None]
        self.sent += 1
        if present:
            flat = torch.cat([gradient.flatten() for gradient in present])
            self._messages.append((dist.all_reduce(flat, async_op=True), flat, present))

    def send_rest(self, gradients: Gradients) -> None:
        """Send all buckets that have not been sent yet."""
        while self.sent < len(self.buckets):
            self.send_next(gradients)

    def wait(self) -> None:
        """Wait for all messages, and leave the gradients as they are."""
        for work, _, _ in self._messages:
            work.wait()

    def average(self) -> None:
        """Wait for all messages, and write the averages into the gradients."""
        for work, flat, gradients in self._messages:
            work.wait()
            flat /= self.processes
            averages = flat.split([gradient.numel() for gradient in gradients])
            for gradient, average in zip(gradients, averages, strict=True):
                gradient.copy_(average.view_as(gradient))


def group_into_buckets(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> list[list[int]]:
    """Group the parameters that take a gradient into buckets of one dtype, last ones first.

    >>> group_into_buckets([nn.Parameter(torch.zeros(size)) for size in (2, 3, 9)], bucket_bytes=20)
    [[2], [1, 0]]

    Args:
        parameters: in the order in which the networks use them.
        bucket_bytes: size of a bucket; a larger parameter gets its own.

    Returns:
        Indices of the parameters of each bucket.
    """
    buckets: list[list[int]] = []
    size, last_dtype = 0, None
    for index in reversed(range(len(parameters))):
        parameter = parameters[index]
        if not parameter.requires_grad:
            continue
        parameter_bytes = parameter.numel() * parameter.element_size()
        if not buckets or size + parameter_bytes > bucket_bytes or parameter.dtype != last_dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(index)
        size, last_dtype = size + parameter_bytes, parameter.dtype
    return buckets


@dataclass(frozen=True)
class GradientLimit:
    """The largest norm of the unlabelled gradient, as a multiple of the supervised one's.

    >>> limit = GradientLimit(start=2.0, end=0.5, steps=100)
    >>> [limit.at(step) for step in (0, 50, 100)]
    [2.0, 1.0, 0.5]

    Args:
        start: limit in the first step; 0 for no limit.
        end: limit in the last step, reached evenly on a logarithmic scale; None if constant.
    """

    start: float
    end: float | None = None
    steps: int = 1

    @classmethod
    def from_settings(cls, settings: SemiSettings) -> GradientLimit:
        """Return the limit of a training with these settings."""
        return cls(
            settings.unlabelled_gradient_limit,
            settings.unlabelled_gradient_limit_at_end,
            settings.total_steps,
        )

    def at(self, step: int) -> float:
        """Return the limit in optimizer step ``step``, from 0."""
        if self.end is None or not self.start:
            return self.start
        return self.start * float(self.end / self.start) ** min(1.0, step / self.steps)


class GradientBalance:
    """Keeps supervised and unlabelled gradients of a step apart, and limits the unlabelled one.

    Both are averaged over the processes, the supervised one while unlabelled terms are computed.

    Args:
        networks: all networks that take a gradient.
        limit: limit of the unlabelled gradient of all networks together. Without a limit, all
            gradients are added up as usual.
        records: receives the ratio of the norms before the limit.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        limit: GradientLimit,
        records: StepRecords,
        processes: int = 1,
    ):
        self.networks, self.limit, self.records = networks, limit, records
        self.average = GradientAverage(networks, processes)
        self._supervised: Gradients | None = None  # set while unlabelled terms are back-propagated
        self._unlabelled: Gradients | None = None
        self._supervised_reduction: GradientReduction | None = None

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for network in self.networks for parameter in network.parameters()]

    def begin_unlabelled(self, is_last_batch: bool) -> None:
        """Announce that the coming backward passes are those of unlabelled terms.

        Args:
            is_last_batch: whether the batch is the last of the step, so that the supervised
                gradient is complete.
        """
        if self.limit.start and self._supervised is None:
            self._supervised = self._swap_gradients(self._unlabelled)
            if is_last_batch:
                self._supervised_reduction = self.average.begin(self._supervised)

    def end_batch(self) -> None:
        """Announce that the coming backward passes are those of supervised terms again."""
        if self._supervised is not None:
            self._unlabelled = self._swap_gradients(self._supervised)
            self._supervised = None

    def combine(self, step: int) -> None:
        """Average the gradients over the processes, limit the unlabelled one, and add both."""
        if self._unlabelled is None:
            self.average.finish()
            return
        supervised = self._swap_gradients(self._unlabelled)
        (self._supervised_reduction or self.average.begin(supervised)).average()
        self._unlabelled = self._supervised_reduction = None
        self.average.finish()
        unlabelled = self._swap_gradients(supervised)
        ratio = total_norm(unlabelled) / total_norm(supervised).clamp_min(1e-12)
        finite_ratio = ratio.where(ratio.isfinite(), torch.nan)  # float16's scaler skips the step
        self.records.add("gradient/unlabelled_over_supervised", finite_ratio)
        factor = (self.limit.at(step) / ratio.clamp_min(1e-12)).clamp_max(1.0)
        for parameter, gradient in zip(self._parameters, unlabelled, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient * factor
            else:
                parameter.grad += gradient * factor

    def _swap_gradients(self, gradients: Gradients | None) -> Gradients:
        """Replace the gradients of all parameters (None removes them); return the old ones."""
        parameters = self._parameters
        previous = [parameter.grad for parameter in parameters]
        replacements = gradients or [None] * len(parameters)
        for parameter, gradient in zip(parameters, replacements, strict=True):
            parameter.grad = gradient
        return previous


def total_norm(gradients: Gradients) -> torch.Tensor:
    """Return the Euclidean norm of all gradients together; 0 if there are none."""
    norms = [torch.linalg.vector_norm(g.float()) for g in gradients if g is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
