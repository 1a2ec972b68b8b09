"""Do the same work on many cases, in several processes; a process that is killed is noticed."""

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
MOST_AT_A_TIME, FEWEST_TURNS = 32, 100  # jobs handed to a process at once; and of each process


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
    done = 0
    with process_pool(min(num_processes, len(jobs))) as pool:
        try:
            at_a_time = max(1, min(MOST_AT_A_TIME, len(jobs) // (FEWEST_TURNS * num_processes)))
            for result in pool.map(function, jobs, chunksize=at_a_time):
                yield result
                done += 1
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that {what} was killed after {done} of {len(jobs)} cases, probably "
                f"because memory ran out with {num_processes} processes",
                fix="use fewer, 1 needs the least",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def process_pool(count: int) -> ProcessPoolExecutor:
    """So many spawned processes, which end with this one, however it ends: a killed process cannot
    end those that it has started, and they would work on for nobody.
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
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)
