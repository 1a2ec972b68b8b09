"""Limit the gradient of unlabelled images relative to that of labelled ones.

An optimizer that normalises its steps (Adam), or a clipped gradient, follows the larger of two
gradients at any learning rate. If the unlabelled gradient is several times the supervised one, the
network fits its labelled patches later than it would without unlabelled images. The ratio was two
to four on left atria in 3-D, and about one on cardiac slices (docs/results/la.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.gradient_average import GradientAverage, GradientReduction
from semi_nnunet.training.step_records import StepRecords

Gradients = list[torch.Tensor | None]


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
