"""Forked processes that tests can kill, and a process that has ended."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

context = multiprocessing.get_context("forkserver")  # compression threads stay whole


def forked(target: Callable[..., object], *args: Any) -> BaseProcess:
    """Start a process that calls ``target`` with this one's environment variables."""
    context.set_forkserver_preload(["tests.imported"])
    process = context.Process(target=_call, args=(dict(os.environ), target, args))
    process.start()
    return process


def ended_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _call(environment: dict[str, str], target: Callable[..., object], args: tuple[Any]) -> None:
    os.environ.update(environment)
    target(*args)
    os._exit(0)  # reached only if nothing killed the process
