"""Average gradients over processes, bucket by bucket, while the last backward pass still runs.

A loss term is back-propagated before the next one is computed, so the last pass of a step, and the
parameters that it reaches, are predicted from the step before. Every gradient is sent once a step,
in the same buckets and order whether during a pass or after it, so that results do not depend on
the timing. All processes have the same terms, and therefore send in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

BUCKET_BYTES = 25 * 2**20  # as PyTorch's DDP

Gradients = Sequence[torch.Tensor | None]  # one for each parameter


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
