"""What was measured of training steps, as lines to read."""

from __future__ import annotations

from collections.abc import Iterator

from semi_nnunet.benchmarking.run import Cost, Measured
from semi_nnunet.util.markdown import table

HEADER = (
    "trainer", "step, ms", "half of them", "/ baseline's", "operations", "/ its passes",
    "patches/s", "loading, ms", "memory, MiB", "/ baseline's",
)  # fmt: skip


def lines(measured: Measured) -> Iterator[str]:
    """A heading, a table in Markdown, and why some trainers are not in it."""
    work, floor = measured.work, 1000 * measured.floor.seconds.median
    yield f"{work.dataset} {work.configuration} {work.plans} on {work.device}"
    yield ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    yield f"labelled forward and backward pass: {floor:.1f} ms"
    if measured.case is not None:
        yield f"prediction of a case of median size, mirrored: {measured.case:.1f} s"
    yield ""
    rows = [HEADER, *(row(measured, cost) for cost in measured.costs)]
    yield from table(rows, numbers=True).splitlines()
    for trainer, why in measured.refused.items():
        yield f"{trainer}: {why}"


def row(measured: Measured, cost: Cost) -> tuple[str, ...]:
    """The cells of a trainer."""
    base, seconds, alone = measured.baseline, cost.seconds, cost.alone
    operations = base.operations and cost.operations and cost.operations / base.operations
    memory = base.alone.mib and alone.mib and alone.mib / base.alone.mib
    return (
        cost.trainer,
        f"{1000 * seconds.median:.1f}",
        f"{1000 * seconds.low:.1f} to {1000 * seconds.high:.1f}",
        f"{seconds.median / base.seconds.median:.2f}",
        number(operations, 2),
        number(measured.of_passes(cost), 2),
        number(cost.rate, 1),
        number(alone.loading and 1000 * alone.loading, 1),
        number(alone.mib, 0),
        number(memory, 2),
    )


def number(value: float | None, digits: int) -> str:
    """Rounded; a dash where it is not known."""
    return "-" if value is None else f"{value:.{digits}f}"
