"""What a short training needs: another optimizer than a long one, and the fastest arithmetic."""

from __future__ import annotations

from semi_nnunet.training.precision import computes_bfloat16_fast

ADAM_BELOW = 5000  # steps; not measured: on Hippocampus SGD had caught up after 3,000


def settings_where_steps_are_few(steps: int, device: str) -> tuple[str, ...]:
    """The settings that a training of so many steps is planned with, as ``plan --set`` takes them.

    SGD with momentum .99 needs its first hundreds of steps to get under way: 600 steps on cardiac
    slices gave a Dice of .43, those of Adam .53 (docs/results/journal.md).

    Args:
        steps: of the training.
        device: "cpu", "cuda" or "mps".
    """
    found: tuple[str, ...] = ()
    if steps < ADAM_BELOW:
        found += ("optimizer=adam", "initial_lr=0.001")
    if device == "cpu" and computes_bfloat16_fast():
        found += ("mixed_precision=bfloat16",)
    return found
