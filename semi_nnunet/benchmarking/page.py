"""The table of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator

from semi_nnunet.benchmarking.run import Measured, StepCost
from semi_nnunet.util.markdown import table

HEADER = (
    "trainer", "step, ms", "half of them", "/ baseline's", "operations", "/ its passes",
    "patches/s", "loading, ms", "memory, MiB", "/ baseline's",
)  # fmt: skip


def lines(measured: Measured) -> Iterator[str]:
    """Yield a heading, a Markdown table, and why some trainers are missing in it."""
    work, floor = measured.work, 1000 * measured.floor.seconds.median
    yield f"{work.dataset} {work.configuration} {work.plans} on {work.device}"
    yield ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    yield f"labelled forward and backward pass: {floor:.1f} ms"
    if measured.case is not None:
        yield f"prediction of a case of median size, mirrored: {measured.case:.1f} s"
    yield ""
    rows = [HEADER, *(format_cost_row(measured, cost) for cost in measured.costs)]
    yield from table(rows, numbers=True).splitlines()
    for trainer, reason in measured.refused.items():
        yield f"{trainer}: {reason}"


def format_cost_row(measured: Measured, cost: StepCost) -> tuple[str, ...]:
    """Return the cells of a trainer."""
    base, seconds, separate = measured.baseline, cost.seconds, cost.alone
    operations = base.operations and cost.operations and cost.operations / base.operations
    memory = base.alone.mib and separate.mib and separate.mib / base.alone.mib
    return (
        cost.trainer,
        f"{1000 * seconds.median:.1f}",
        f"{1000 * seconds.low:.1f} to {1000 * seconds.high:.1f}",
        f"{seconds.median / base.seconds.median:.2f}",
        format_number(operations, 2),
        format_number(measured.divide_by_passes(cost), 2),
        format_number(cost.rate, 1),
        format_number(separate.loading and 1000 * separate.loading, 1),
        format_number(separate.mib, 0),
        format_number(memory, 2),
    )


def format_number(value: float | None, digits: int) -> str:
    """Round a number; ``None`` gives a dash.

    >>> format_number(1.234, 1), format_number(None, 1)
    ('1.2', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"
