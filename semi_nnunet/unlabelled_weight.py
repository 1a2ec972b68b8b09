"""When the unlabelled terms begin to count, and how their weight grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from semi_nnunet.core.ramps import ramp


class UnlabelledWeight:
    """The factor on every unlabelled term: 0 until every class is known, then the ramp-up's.

    Consistency with a network that does not know a class yet would hold that class back.

    Args:
        settings: of the trainer (``unlabelled_weight``, ``unlabelled_start_steps``,
            ``unlabelled_start_dice``, ``ramp_up``, ``ramp_up_steps``).
    """

    def __init__(self, settings: Any):
        self.settings = settings
        self.start_step: int = settings.unlabelled_start_steps

    def at(self, step: int) -> float:
        """The factor in optimizer step ``step``."""
        if step < self.start_step:
            return 0.0
        settings = self.settings
        return settings.unlabelled_weight * ramp(settings.ramp_up, step, settings.ramp_up_steps)

    def after_validation(self, dice: Iterable[float], next_step: int) -> bool:
        """Begin at ``next_step`` if every class has the Dice for it; whether that is news.

        A class that no validation patch shows (NaN) is not known.
        """
        known = all(value >= self.settings.unlabelled_start_dice for value in dice)
        if not known or next_step >= self.start_step:
            return False
        self.start_step = next_step
        return True

    def state(self) -> int | None:
        """The step they began at, if earlier than the settings say."""
        return self.start_step if self.start_step < self.settings.unlabelled_start_steps else None

    def restore(self, state: int | None) -> None:
        """Take over what :meth:`state` said."""
        if state is not None:
            self.start_step = state
