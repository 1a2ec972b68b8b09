"""An optimizer step: back-propagate the loss term by term, then clip and update all networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import autocast, nn

from semi_nnunet.training.gradients import GradientBalance
from semi_nnunet.training.reliability import UnlabelledWeight
from semi_nnunet.training.step_records import NonFiniteWatch, StepRecords, StepValue


@dataclass(frozen=True)
class Term:
    """A term of the loss.

    >>> term = Term("consistency", torch.tensor(0.25), weight=10.0)
    >>> term.ramped
    True

    Args:
        name: name in the history.
        value: unweighted scalar.
        weight: factor on the value.
        ramped: the weight also grows with the ramp-up of unlabelled terms.
        limited: whether the gradient of a ramped term is limited by ``unlabelled_gradient_limit``.
            Yield the terms without a limit first.
        reads_unlabelled: whether the value depends on unlabelled patches, too.
    """

    name: str
    value: torch.Tensor
    weight: float = 1.0
    ramped: bool = True
    limited: bool = True
    reads_unlabelled: bool = True


@dataclass(frozen=True)
class BatchCases:
    """The cases of a batch, which the error names if a loss term is not finite."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]

    def used_by(self, term: Term) -> tuple[str, ...]:
        """Return the cases that a term depends on."""
        return self.labelled + self.unlabelled if term.reads_unlabelled else self.labelled


@dataclass(eq=False)
class OptimizerStep:
    """Weigh and back-propagate terms one after the other, then update the networks.

    The graph of a term is freed before the next term is computed, so that a step needs about the
    memory of a supervised step.

    Args:
        networks: all networks that take a gradient.
        optimizer: optimizer of all weights.
        scaler: scaler of float16 gradients, or None.
        gradient_clip: limit on the gradient norm of each network; 0 for none.
        dtype: autocast dtype of the networks, or None for float32.
        unlabelled_weight: factor on ramped terms.
        records: receives values and weights of the terms.
        non_finite: stops the training if a value is not finite.
        balance: limits the unlabelled gradient, and averages gradients over processes.
        steps_in_cycle: steps after which the same terms come again.
    """

    networks: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer
    scaler: Any
    gradient_clip: float
    dtype: torch.dtype | None
    unlabelled_weight: UnlabelledWeight
    records: StepRecords
    non_finite: NonFiniteWatch
    balance: GradientBalance
    steps_in_cycle: int = 1
    _backward_passes: int = field(default=0, init=False)
    _earlier_passes: dict[int, int] = field(default_factory=dict, init=False)  # by step of a cycle

    def back_propagate(
        self,
        terms: Iterable[Term],
        step: int,
        cases: BatchCases,
        device: torch.device,
        share: float,
        is_last_batch: bool,
    ) -> None:
        """Compute and back-propagate the terms of one batch.

        While unlabelled terms have no weight, the first of them is computed for the records, and
        all later terms are skipped. The recorded values of terms with the same name are summed.

        Args:
            terms: of the batch; the next one is computed when the last one was back-propagated.
            step: number of the step.
            cases: cases of the batch, for error messages.
            device: of the networks.
            share: weight of the batch in the loss of the step, 1 / number of its batches.
            is_last_batch: whether this is the last batch of the step.
        """
        remaining, values = iter(terms), dict[str, torch.Tensor]()
        while (term := self.next_term(remaining, device)) is not None:
            has_weight = not term.ramped or self.unlabelled_weight.at(step) > 0.0
            if term.ramped and term.limited and has_weight:
                self.balance.begin_unlabelled(is_last_batch)
            value = term.value.detach()
            values[term.name] = values[term.name] + value if term.name in values else value
            self._back_propagate_term(term, step, cases.used_by(term), share)
            if not has_weight:
                break
        for name, value in values.items():
            self.records.add(f"loss/{name}", value)
        self.balance.end_batch()

    def next_term(self, terms: Iterator[Term], device: torch.device) -> Term | None:
        """Compute the next term under autocast; return None after the last."""
        with self._autocast(device):
            return next(terms, None)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        # without the cache, which would keep weights that were cast without gradient
        return autocast(device.type, self.dtype, cache_enabled=False)

    def _back_propagate_term(
        self, term: Term, step: int, cases: tuple[str, ...], share: float
    ) -> None:
        weight = term.weight * (self.unlabelled_weight.at(step) if term.ramped else 1.0)
        self.records.add(f"weight/{term.name}", weight)
        name = f"the term {term.name!r}"
        self.non_finite.add(StepValue(name, term.value.detach(), step, cases))
        if weight != 0.0:
            self._backward_passes += 1
            expected = self._earlier_passes.get(step % self.steps_in_cycle)
            is_last_pass = self._backward_passes == expected
            self.balance.average.begin_pass(is_last_pass)
            loss = term.value * (weight * share)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self, step: int, cases: tuple[str, ...]) -> None:
        """Average the gradients over the processes, clip those of each network, and update.

        Raises:
            UserError: a term or a gradient is not finite, if ``non_finite`` checks every step.
        """
        self.balance.combine(step)
        self._earlier_passes[step % self.steps_in_cycle] = self._backward_passes
        self._backward_passes = 0
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        limit = self.gradient_clip or float("inf")
        for network in self.networks:
            norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
            if self.scaler is None:  # a scaler skips a step whose gradient is not finite
                name = "the norm of the gradient"
                self.non_finite.add(StepValue(name, norm.detach(), step, cases))
        self.non_finite.check()
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
