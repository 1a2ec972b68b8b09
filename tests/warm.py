"""Python processes that start at once, forked from a process that has imported PyTorch.

A training or a verb takes seconds for its imports, and the tests start hundreds. ``warm`` replaces
a command of Python: a small client sends words, variables, working folder and open files to the
server, which forks. Signals are passed to the fork, and its exit status is passed back. The server
does not keep modules of nnU-Net and of this package, so that they read the environment of the
command when they are imported.
"""

from __future__ import annotations

import multiprocessing.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from semi_nnunet.runs import commands
from tests.warm_server import CLIENT, spawning_warm

SERVER = Path(__file__).with_name("warm_server.py")
CAN_FORK = hasattr(os, "pidfd_open")  # Linux
KNOWN = "WARM_SERVER"  # the variable by which a warm process finds the server, too

AND_ITS_COMMANDS = f"""
import sys; sys.path.append({str(SERVER.parents[1])!r})
from tests.warm import warm_commands; warm_commands()
"""


def warm(command: list[str], with_commands: bool = False) -> list[str]:
    """The command of a Python process that does what ``command`` does, without the imports.

    Args:
        command: this Python's path, ``-c``, code and words.
        with_commands: the verb that it runs starts its own commands warm, too.

    Returns:
        A command for :mod:`subprocess`; the one given where processes cannot be forked.
    """
    if not CAN_FORK:
        return command
    python, option, code, *words = command
    if (python, option) != (sys.executable, "-c"):
        raise ValueError(f"no code for this Python: {command}")
    if with_commands:
        code = AND_ITS_COMMANDS + code
    return [sys.executable, "-I", "-S", CLIENT, server(), "", code, *words]


def warm_commands(setattr: Callable[[object, str, object], None] = setattr) -> None:
    """Let verbs of this process start commands, and multiprocessing start processes, warm.

    Args:
        setattr: replaces an attribute of a module.
    """

    def arguments_of(*given: Any, **named: Any) -> list[str]:
        return warm(original(*given, **named))

    if not CAN_FORK:
        return
    original = commands.build_child_arguments
    setattr(commands, "build_child_arguments", arguments_of)
    setattr(multiprocessing.util, "spawnv_passfds", spawning_warm(server))


@cache
def server() -> str:
    """Return the socket of this process's server, which ends with the process."""
    if KNOWN in os.environ:
        return os.environ[KNOWN]
    path = Path(tempfile.mkdtemp(prefix="warm")) / "socket"
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(path)],
        stdin=subprocess.PIPE,  # held open until we end
        stdout=subprocess.PIPE,
        cwd=SERVER.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    if process.stdout is None or process.stdout.readline() != b"ready\n":
        raise RuntimeError("the server of warm processes did not start")
    os.environ[KNOWN] = str(path)
    return str(path)
