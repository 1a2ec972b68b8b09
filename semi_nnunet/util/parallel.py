"""The same work on many cases, in several processes; one that is killed is noticed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from semi_nnunet.util.errors import UserError

POLL_S = 2.0  # how often to look whether the worker processes still live
T = TypeVar("T")
R = TypeVar("R")


def in_processes(
    function: Callable[[T], R], jobs: Sequence[T], num_processes: int, what: str
) -> Iterator[R]:
    """``function`` of each job, in their order; spawns processes if there are more than one.

    Args:
        function: importable by a new process.
        jobs: one argument each.
        num_processes: up to 1 means in this process.
        what: such a process does, for the error.

    Raises:
        UserError: a process was killed.
    """
    if num_processes <= 1 or len(jobs) <= 1:
        yield from map(function, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(num_processes, len(jobs))) as pool:
        workers = list(pool._pool)  # type: ignore[attr-defined]  # a dead one loses its job silently
        results = pool.imap(function, jobs)
        for done in range(len(jobs)):
            while True:
                try:
                    yield results.next(timeout=POLL_S)
                    break
                except multiprocessing.TimeoutError:
                    if not all(worker.is_alive() for worker in workers):
                        raise UserError(
                            f"a process that {what} was killed after {done} of {len(jobs)} cases, "
                            f"probably because memory ran out with {num_processes} processes. Fix: "
                            f"use fewer, 1 needs the least"
                        ) from None
