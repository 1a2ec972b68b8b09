"""Watch the terms of the loss and stop the training when one is no number any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from semi_nnunet.util.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Seen:
    """A term's value in one step, on the device, and the cases it was computed on."""

    term: str
    value: torch.Tensor
    step: int
    cases: tuple[str, ...]


class FiniteWatch:
    """Collects values on the device and looks at them all at once.

    Args:
        every: how many values to collect before looking; on a GPU looking makes the program wait
            for it.
    """

    def __init__(self, every: int):
        self.every = every
        self._seen: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Note a value."""
        self._seen.append(seen)

    def look(self, now: bool = False) -> None:
        """Look at the values since the last time, if there are enough of them or ``now``.

        Raises:
            UserError: naming the first term that is NaN or infinite, its step and its cases.
        """
        if not self._seen or not (now or len(self._seen) >= self.every):
            return
        import torch  # here, as launchers want this file's times alone

        values = torch.stack([seen.value.float() for seen in self._seen]).cpu()
        collected, self._seen = self._seen, []
        for seen, value in zip(collected, values.tolist(), strict=True):
            if value != value or value in (float("inf"), float("-inf")):
                raise UserError(
                    f"training stopped at step {seen.step}: the term {seen.term!r} became {value} "
                    f"on the cases {', '.join(seen.cases)}. The checkpoints written before are "
                    f"intact. "
                    f"Fix: look at these images (semi_nnunet preprocess verifies them) and at the "
                    f"learning rate, then continue with --c"
                )


def collapse_warning(pseudo_label: float | None, labelled: float | None) -> str | None:
    """What to say where pseudo labels have next to no foreground although labels have; or None.

    Args:
        pseudo_label: mean fraction of foreground voxels in the pseudo labels of an epoch.
        labelled: the same in the labels.
    """
    if pseudo_label is None or not labelled or pseudo_label >= 0.01 * labelled:
        return None
    return (
        f"WARNING: the pseudo labels have nearly no foreground ({pseudo_label:.1e} of the voxels; "
        f"the labels have {labelled:.1e}): the teacher collapses. Lower the weight of the "
        f"unlabelled term, lengthen ramp_up_steps, or check that the unlabelled images show the "
        f"same organs"
    )


class TimeLeft:
    """Estimate the rest of a training from its last ten epochs."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def after_epoch(self, seconds: float, epochs_left: int) -> str:
        """The estimate after an epoch that took ``seconds``, as "45 s", "12 min" or "3.5 h"."""
        self._seconds = [*self._seconds[-9:], seconds]
        return readable_time(epochs_left * sum(self._seconds) / len(self._seconds))


def readable_time(seconds: float) -> str:
    """Such as "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
