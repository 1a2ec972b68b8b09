"""What suits a device and a number of steps: the fastest arithmetic, and an optimizer."""

from __future__ import annotations

from semi_nnunet.training.precision import computes_bfloat16_fast

ADAM_BELOW = 5000  # steps; after 4,800 SGD is behind by .3 (Hippocampus) and 4.6 points (ACDC)


def settings_of_steps(steps: int) -> tuple[str, ...]:
    """The settings that a training of so many steps is planned with, as ``plan --set`` takes them.

    SGD with momentum .99 needs its first hundreds of steps to get under way: 600 steps on cardiac
    slices gave a Dice of .45, those of Adam .55 (docs/results/journal.md, "Adam or SGD").
    """
    return ("optimizer=adam", "initial_lr=0.001") if steps < ADAM_BELOW else ()


def settings_of_device(device: str) -> tuple[str, ...]:
    """The settings that all plans for a device begin with; steps are timed with them, too.

    Args:
        device: "cpu", "cuda" or "mps".
    """
    fast = device == "cpu" and computes_bfloat16_fast()
    return ("mixed_precision=bfloat16",) if fast else ()
