"""Process many cases in several processes, and notice if one of them is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from tqdm import tqdm

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.messages import show_messages, shows_messages

T = TypeVar("T")
R = TypeVar("R")
MAX_CHUNK, MIN_CHUNKS = 32, 100  # jobs that a process gets at once; chunks of each process


def in_processes(
    function: Callable[[T], R], jobs: Sequence[T], num_processes: int, what: str
) -> Iterator[R]:
    """Yield ``function(job)`` of each job, in order, from several processes.

    >>> list(in_processes(abs, [-1, 2], num_processes=1, what="computes"))
    [1, 2]

    Args:
        function: importable by a new process.
        jobs: one argument each.
        num_processes: up to 1 means this process.
        what: the work as a verb, for the error message: "checks images".

    Raises:
        UserError: a process was killed.
    """
    if num_processes <= 1 or len(jobs) <= 1:
        yield from map(function, jobs)
        return
    done = 0
    chunk = max(1, min(MAX_CHUNK, len(jobs) // (MIN_CHUNKS * num_processes)))
    with process_pool(min(num_processes, len(jobs))) as pool:
        try:
            for result in pool.map(function, jobs, chunksize=chunk):
                yield result
                done += 1
        except BrokenProcessPool as error:
            pool.require_begun()
            raise UserError(
                f"a process that {what} was killed after {done} of {len(jobs)} cases, probably "
                f"because memory ran out with {num_processes} processes",
                fix="use fewer processes; 1 needs the least memory",
            ) from error


def attempt_in_processes(
    function: Callable[[T], R], jobs: Sequence[T], num_processes: int
) -> Generator[tuple[T, R | BaseException], None, None]:
    """Yield each job with its result or its error as soon as it ends, in any order.

    A killed process takes the jobs of all others with it; each of these runs again, by itself.
    Arguments as for :func:`in_processes`.

    >>> dict(attempt_in_processes(int, ["1", "x"], num_processes=1))
    {'1': 1, 'x': ValueError("invalid literal for int() with base 10: 'x'")}
    """
    if num_processes <= 1 or not jobs:
        for job in jobs:
            try:
                yield job, function(job)
            except Exception as error:
                yield job, error
        return
    lost: list[T] = []
    with process_pool(min(num_processes, len(jobs))) as pool:
        futures = {pool.submit(function, job): job for job in jobs}
        for future in as_completed(futures):
            if isinstance(future.exception(), BrokenProcessPool):
                pool.require_begun()
                lost.append(futures[future])
            else:
                yield futures[future], _result_or_error(future)
    for number, job in enumerate(lost, start=1):
        tqdm.write(f"a process was killed: {job} runs by itself ({number} of {len(lost)})")
        with process_pool(1) as pool:
            yield job, _result_or_error(pool.submit(function, job))


def _result_or_error(future: Future[Any]) -> Any:
    error = future.exception()
    return future.result() if error is None else error


class Workers(ProcessPoolExecutor):
    """Spawned processes that end with this one, even if it is killed.

    A killed process cannot end its children; these watch their parent instead.
    """

    def __init__(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._begun = spawn.Event()
        arguments = (shows_messages(), self._begun)
        super().__init__(count, spawn, _begin_worker, arguments)

    def require_begun(self) -> None:
        """Raise a :class:`UserError` if each process ended before its first job."""
        if not self._begun.is_set():
            raise UserError(
                "new processes ended while they began, before their first job",
                fix='a script needs `if __name__ == "__main__":` around its calls, because new '
                "processes import it again; otherwise see the first error above",
            )


@contextmanager
def process_pool(count: int) -> Iterator[Workers]:
    """Open a pool of processes. An error in the ``with`` block cancels the waiting jobs."""
    with Workers(count) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin_worker(show: bool, begun: Event) -> None:
    begun.set()
    if show:
        show_messages()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
