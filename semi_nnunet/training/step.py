"""An optimizer step: the terms of the loss one by one, then the clipped update of all networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import autocast, nn

from semi_nnunet.training.gradient_balance import GradientBalance
from semi_nnunet.training.non_finite import NonFiniteWatch, Seen
from semi_nnunet.training.reliability import UnlabelledWeight
from semi_nnunet.training.step_records import StepRecords


@dataclass(frozen=True)
class Term:
    """One part of the loss.

    Args:
        name: under which it is logged.
        value: a scalar, unweighted.
        weight: it is multiplied by.
        ramped: whether the weight grows with the settings' ramp-up.
        limited: whether a ramped term's gradient counts as unlabelled, which
            ``unlabelled_gradient_limit`` limits. Terms where it does not come before those where
            it does.
    """

    name: str
    value: torch.Tensor
    weight: float = 1.0
    ramped: bool = True
    limited: bool = True

    @property
    def is_supervised(self) -> bool:
        """Whether it looks at labelled patches alone."""
        return self.name.startswith("supervised")


@dataclass(frozen=True)
class Cases:
    """The cases of a batch, for the message that a value is not finite."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]

    def of(self, term: Term) -> tuple[str, ...]:
        """The cases that a term looks at."""
        return self.labelled if term.is_supervised else self.labelled + self.unlabelled


class OptimizerStep:
    """Weighs and back-propagates terms as they come, and updates the networks.

    The graph of each term is freed before the next one is computed, so that a step needs about the
    memory of a supervised one.

    Args:
        networks: every network that takes a gradient.
        optimizer: of all of them.
        scaler: of float16 gradients, or None.
        gradient_clip: limit on the norm of each network's gradient; 0: none.
        dtype: what the networks compute in, where that is not float32.
        unlabelled_weight: factor on ramped terms.
        records: where values and weights of the terms are noted.
        non_finite: stops the training where a value is not finite.
        balance: of the supervised and the unlabelled gradient; averages them over processes.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        gradient_clip: float,
        dtype: torch.dtype | None,
        unlabelled_weight: UnlabelledWeight,
        records: StepRecords,
        non_finite: NonFiniteWatch,
        balance: GradientBalance,
    ):
        self.networks, self.optimizer, self.scaler = networks, optimizer, scaler
        self.gradient_clip, self.dtype = gradient_clip, dtype
        self.unlabelled_weight, self.records = unlabelled_weight, records
        self.non_finite, self.balance = non_finite, balance
        self._passes = self._passes_before = 0  # backward ones, of this step and of the last one

    def back_propagate(
        self,
        terms: Iterable[Term],
        step: int,
        cases: Cases,
        device: torch.device,
        share: float,
        is_last: bool,
    ) -> None:
        """Ask for each term and back-propagate it; terms of one name are parts of one term.

        Args:
            terms: of one batch; none is asked for once the unlabelled ones have no weight yet.
            step: of the optimizer.
            cases: of the batch.
            device: of the networks.
            share: of the batch in an optimizer step of several.
            is_last: batch of the step.
        """
        waiting, values = iter(terms), dict[str, torch.Tensor]()
        while (term := self.next_term(waiting, device)) is not None:
            has_weight = not term.ramped or self.unlabelled_weight.at(step) > 0.0
            if term.ramped and term.limited and has_weight:
                self.balance.unlabelled_begins(is_last)
            so_far = values.get(term.name)
            value = term.value.detach()
            values[term.name] = value if so_far is None else so_far + value
            self._add(term, step, cases.of(term), share)
            if not has_weight:
                break
        for name, value in values.items():
            self.records.add(f"loss/{name}", value)
        self.balance.batch_ends()

    def next_term(self, terms: Iterator[Term], device: torch.device) -> Term | None:
        """The next term; no cast weight is kept for it that was cast without gradient before."""
        with self._cast(device):
            return next(terms, None)

    def _cast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return autocast(device.type, self.dtype, cache_enabled=False)

    def _add(self, term: Term, step: int, cases: tuple[str, ...], share: float) -> None:
        weight = term.weight * (self.unlabelled_weight.at(step) if term.ramped else 1.0)
        self.records.add(f"weight/{term.name}", weight)
        self.non_finite.add(Seen(term.name, term.value.detach(), step, cases))
        if weight != 0.0:
            self._passes += 1
            self.balance.average.pass_begins(is_last=self._passes == self._passes_before)
            loss = term.value * (weight * share)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self, step: int, cases: tuple[str, ...]) -> None:
        """Average the gradients over the processes, clip those of each network, and update.

        Args:
            step: of the optimizer.
            cases: of all its batches.

        Raises:
            UserError: a term or a gradient is not finite.
        """
        self.balance.combine(step)
        self._passes_before, self._passes = self._passes, 0
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        limit = self.gradient_clip or float("inf")
        for network in self.networks:
            norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
            if self.scaler is None:  # a scaler skips such a step and goes on
                self.non_finite.add(Seen("gradient", norm.detach(), step, cases))
        self.non_finite.look()
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
