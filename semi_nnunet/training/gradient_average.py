"""Gradients are averaged over processes a bucket at a time, while the last backward pass runs.

A term of the loss is back-propagated before the next one is computed: which pass is the last one,
and which parameters it reaches, is known from the step before. Every gradient is sent once a step,
in the same buckets and order whether it is sent during a pass or after it, so that no number
depends on when it is sent. All processes have the same terms, and so send in the same order.
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
        networks: that take a gradient.
        processes: how many there are; with 1 nothing is done.
        bucket_bytes: about how much is sent at once.
    """

    def __init__(
        self, networks: Sequence[nn.Module], processes: int, bucket_bytes: int = BUCKET_BYTES
    ):
        self.processes = processes
        self._parameters = [parameter for one in networks for parameter in one.parameters()]
        self._buckets = buckets_of(self._parameters, bucket_bytes) if processes > 1 else []
        self._running: Reduction | None = None  # during the pass that is expected to be the last
        self._reached = set[int]()  # parameters, by the present pass
        self._expected = set[int]()  # by the last pass of the step before
        self._missing: list[int] = []  # of each bucket, how many of those are not reached yet
        for number, bucket in enumerate(self._buckets):
            for index in bucket:
                ready = partial(self._ready, number, index)
                self._parameters[index].register_post_accumulate_grad_hook(ready)

    def pass_begins(self, is_last: bool) -> None:
        """A backward pass begins.

        Args:
            is_last: it is expected to be the last one of the step. Where it was not, what was sent
                is sent again.
        """
        self._reached = set()
        self._give_up()
        if is_last:
            self._running = self._reduction()
            self._missing = [len(self._expected & {*bucket}) for bucket in self._buckets]

    def _ready(self, bucket: int, index: int, parameter: torch.Tensor) -> None:
        """The present pass has added its part to the gradient of a parameter."""
        self._reached.add(index)
        if self._running is None:
            return
        if index not in self._expected:  # its bucket may be on its way
            self._give_up()
            return
        self._missing[bucket] -= 1
        while (at := self._running.sent) < len(self._buckets) and not self._missing[at]:
            self._running.send_next(self._gradients)

    def _give_up(self) -> None:
        """What was sent during the pass was not all that there is: it will be sent again."""
        if self._running is not None:
            self._running.wait()
            self._running = None

    def begin(self, gradients: Gradients) -> Reduction:
        """Send gradients that nothing will be added to; they arrive while the step goes on."""
        reduction = self._reduction()
        reduction.send_rest(gradients)
        return reduction

    def finish(self) -> None:
        """Average the gradients of the parameters, which the passes added up, in place."""
        reduction, self._running = self._running or self._reduction(), None
        self._expected = self._reached
        reduction.send_rest(self._gradients)
        reduction.average()

    @property
    def _gradients(self) -> Gradients:
        return [one.grad for one in self._parameters]

    def _reduction(self) -> Reduction:
        return Reduction(self._buckets, self.processes)


class Reduction:
    """The gradients of a step on their way, bucket after bucket.

    Args:
        buckets: indices of parameters, in the order in which they are sent.
        processes: how many there are.
    """

    def __init__(self, buckets: Sequence[Sequence[int]], processes: int):
        self.buckets, self.processes, self.sent = buckets, processes, 0
        self._on_their_way: list[tuple[Any, torch.Tensor, list[torch.Tensor]]] = []

    def send_next(self, gradients: Gradients) -> None:
        """Send the next bucket; what has no gradient, has none on any process."""
        found = [gradients[index] for index in self.buckets[self.sent]]
        there = [gradient for gradient in found if gradient is not None]
        self.sent += 1
        if there:
            together = torch.cat([gradient.flatten() for gradient in there])
            self._on_their_way.append((dist.all_reduce(together, async_op=True), together, there))

    def send_rest(self, gradients: Gradients) -> None:
        """Send all buckets that are not on their way yet."""
        while self.sent < len(self.buckets):
            self.send_next(gradients)

    def wait(self) -> None:
        """Wait for what was sent, and leave the gradients as they are."""
        for work, _, _ in self._on_their_way:
            work.wait()

    def average(self) -> None:
        """Wait for what was sent, and write the averages into the gradients."""
        for work, together, there in self._on_their_way:
            work.wait()
            together /= self.processes
            parts = together.split([gradient.numel() for gradient in there])
            for gradient, part in zip(there, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def buckets_of(parameters: Sequence[nn.Parameter], most: int) -> list[list[int]]:
    """Indices of the parameters that take a gradient, the last ones first, in parts of one type.

    Args:
        parameters: in the order in which they are used.
        most: bytes of a part; a parameter that is larger is a part of its own.
    """
    buckets: list[list[int]] = []
    size, last_type = 0, None
    for index in reversed(range(len(parameters))):
        one = parameters[index]
        if not one.requires_grad:
            continue
        takes = one.numel() * one.element_size()
        if not buckets or size + takes > most or one.dtype != last_type:
            buckets.append([])
            size = 0
        buckets[-1].append(index)
        size, last_type = size + takes, one.dtype
    return buckets
