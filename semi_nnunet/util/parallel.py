"""Process many cases in several processes, and notice if one of them is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

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
    with process_pool(min(num_processes, len(jobs))) as pool:
        try:
            chunk = max(1, min(MAX_CHUNK, len(jobs) // (MIN_CHUNKS * num_processes)))
            for result in pool.map(function, jobs, chunksize=chunk):
                yield result
                done += 1
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that {what} was killed after {done} of {len(jobs)} cases, probably "
                f"because memory ran out with {num_processes} processes",
                fix="use fewer processes; 1 needs the least memory",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def process_pool(count: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes that end with this one, even if it is killed.

    A killed process cannot end its children; these watch their parent instead.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        count, mp_context=spawn, initializer=_begin_worker, initargs=(shows_messages(),)
    )


def _begin_worker(show: bool) -> None:
    if show:
        show_messages()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
