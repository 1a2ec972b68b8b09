"""Unlabelled images must not pull harder than labelled ones.

An optimizer that normalises its steps (Adam), or a clipped gradient, follows the larger of two
gradients, whatever the learning rate: where the unlabelled one is several times the supervised one,
the network fits its labelled patches later than a network without unlabelled images would. On left
atria in 3-D it was two to four times as large, on cardiac slices as large (docs/results/la.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.gradient_average import GradientAverage, Reduction
from semi_nnunet.training.step_records import StepRecords

Gradients = list[torch.Tensor | None]


@dataclass(frozen=True)
class GradientLimit:
    """The largest norm of the unlabelled gradient, as a multiple of the supervised one's.

    Args:
        start: at the first step; 0: no limit.
        end: at the last step, and evenly on a logarithmic scale between; None: as at the start.
        steps: of the training.
    """

    start: float
    end: float | None = None
    steps: int = 1

    @classmethod
    def of(cls, settings: SemiSettings) -> GradientLimit:
        """The limit of a training with these settings."""
        return cls(
            settings.unlabelled_gradient_limit,
            settings.unlabelled_gradient_limit_at_end,
            settings.total_steps,
        )

    def at(self, step: int) -> float:
        """The limit in optimizer step ``step``, from 0."""
        if self.end is None or not self.start:
            return self.start
        return self.start * float(self.end / self.start) ** min(1.0, step / self.steps)


class GradientBalance:
    """Keeps the two gradients of a step apart, and limits the unlabelled one.

    Both are averaged over the processes, the supervised one while unlabelled terms are computed.

    Args:
        networks: every network that takes a gradient.
        limit: of the unlabelled gradient of all networks together; without one nothing is kept
            apart.
        records: where the ratio of the norms before the limit is noted.
        processes: over which gradients are averaged.
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
        self._aside: Gradients | None = None  # supervised ones, while unlabelled ones add up
        self._unlabelled: Gradients | None = None
        self._supervised_sent: Reduction | None = None

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for network in self.networks for parameter in network.parameters()]

    def unlabelled_begins(self, is_last_batch: bool) -> None:
        """From now on, what is back-propagated is of unlabelled images.

        Args:
            is_last_batch: of the step, so that the supervised gradient is whole.
        """
        if self.limit.start and self._aside is None:
            self._aside = self._swapped(self._unlabelled)
            if is_last_batch:
                self._supervised_sent = self.average.begin(self._aside)

    def batch_ends(self) -> None:
        """What is back-propagated next is supervised again."""
        if self._aside is not None:
            self._unlabelled = self._swapped(self._aside)
            self._aside = None

    def combine(self, step: int) -> None:
        """Average the gradients over the processes, and add up what was kept apart.

        Args:
            step: of the optimizer, from 0.
        """
        if self._unlabelled is None:
            self.average.finish()
            return
        supervised = self._swapped(self._unlabelled)
        (self._supervised_sent or self.average.begin(supervised)).average()
        self._unlabelled = self._supervised_sent = None
        self.average.finish()
        unlabelled = self._swapped(supervised)
        ratio = norm_of(unlabelled) / norm_of(supervised).clamp_min(1e-12)
        noted = ratio.where(ratio.isfinite(), torch.nan)  # a step that the scaler of float16 skips
        self.records.add("gradient/unlabelled_over_supervised", noted)
        factor = (self.limit.at(step) / ratio.clamp_min(1e-12)).clamp_max(1.0)
        for parameter, gradient in zip(self._parameters, unlabelled, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient * factor
            else:
                parameter.grad += gradient * factor

    def _swapped(self, gradients: Gradients | None) -> Gradients:
        """Give the parameters these gradients, none without; returns those that they had."""
        parameters = self._parameters
        before = [parameter.grad for parameter in parameters]
        for parameter, gradient in zip(
            parameters, gradients or [None] * len(parameters), strict=True
        ):
            parameter.grad = gradient
        return before


def norm_of(gradients: Gradients) -> torch.Tensor:
    """The Euclidean norm of all of them together; 0 where there is none."""
    norms = [torch.linalg.vector_norm(one.float()) for one in gradients if one is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
