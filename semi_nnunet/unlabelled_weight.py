"""When the unlabelled terms begin to count, and how their weight grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from semi_nnunet.core.ramps import ramp

FOUND = 0.1  # validation Dice of a class that is predicted at all


class UnlabelledWeight:
    """The factor on every unlabelled term: 0 until the terms begin, then the ramp-up's.

    They begin when every class is known, or at ``unlabelled_start_steps`` if one class at least is
    predicted by then. Consistency with a network that does not know a class yet would hold that
    class back; with one that predicts nothing, all of them.

    Args:
        settings: of the trainer (``unlabelled_weight``, ``unlabelled_start_steps``,
            ``unlabelled_start_dice``, ``ramp_up``, ``ramp_up_steps``).
    """

    def __init__(self, settings: Any):
        self.settings = settings
        self.start_step: int = settings.unlabelled_start_steps
        self.predicts = self.start_step == 0  # told to begin at once, it does

    def has_begun(self, step: int) -> bool:
        """Whether the unlabelled terms count in optimizer step ``step``."""
        return self.predicts and step >= self.start_step

    def at(self, step: int) -> float:
        """The factor in optimizer step ``step``."""
        if not self.has_begun(step):
            return 0.0
        settings = self.settings
        return settings.unlabelled_weight * ramp(settings.ramp_up, step, settings.ramp_up_steps)

    def after_validation(self, dice: Iterable[float], next_step: int) -> bool:
        """Take note of the classes' Dice; whether the terms begin because of it.

        A class that no validation patch shows (NaN) is not known.
        """
        values, before = list(dice), self.predicts and next_step > self.start_step
        self.predicts = self.predicts or any(value >= FOUND for value in values)
        if all(value >= self.settings.unlabelled_start_dice for value in values):
            self.start_step = min(self.start_step, next_step)
            self.predicts = True
        return self.has_begun(next_step) and not before

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        early = self.start_step < self.settings.unlabelled_start_steps
        return {"start_step": self.start_step if early else None, "predicts": self.predicts}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` said."""
        self.predicts = state["predicts"]
        if state["start_step"] is not None:
            self.start_step = state["start_step"]
