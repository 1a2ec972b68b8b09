"""Watch the terms of the loss and stop the training when one is no number any more."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semi_nnunet.util.errors import UserError


@dataclass(frozen=True)
class Seen:
    """A term's value in one step, on the device, and the cases it was computed on."""

    term: str
    value: torch.Tensor
    step: int
    cases: tuple[str, ...]


class NonFiniteWatch:
    """Collects values on the device and looks at them all at once.

    Args:
        at_once: look whenever there is a chance, at the end of a step; otherwise only when told to,
            at the end of an epoch, as a program waits for a GPU at whose values it looks.
    """

    def __init__(self, at_once: bool):
        self.at_once = at_once
        self._seen: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Note a value."""
        self._seen.append(seen)

    def look(self, now: bool = False) -> None:
        """Look at the values since the last time, if that is done at once or ``now``.

        Raises:
            UserError: naming the first term that is NaN or infinite, its step and its cases.
        """
        if not self._seen or not (now or self.at_once):
            return
        values = torch.stack([seen.value.float() for seen in self._seen]).cpu()
        collected, self._seen = self._seen, []
        for seen, value in zip(collected, values.tolist(), strict=True):
            if value != value or value in (float("inf"), float("-inf")):
                raise UserError(
                    f"training stopped at step {seen.step}: the term {seen.term!r} became {value} "
                    f"on the cases {', '.join(seen.cases)}. The checkpoints written before are "
                    f"intact. "
                    f"",
                    fix="look at these images (semi_nnunet preprocess verifies them) and at the "
                    "learning rate, then continue with --c",
                )
