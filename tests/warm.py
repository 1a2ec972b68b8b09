"""Python processes that start at once: forked from one that has imported PyTorch and its kin.

A training or a verb takes seconds to import them, and the tests start hundreds. ``warm`` turns a
command of Python into one that does the same: a small client sends its words, variables, working
folder and open files to the server, which forks; signals travel to the fork, its exit status back.
Modules of nnU-Net and of this package are not in the server: what they read from the environment
when they are imported is that of the command.
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
    """Let verbs of this process start their commands, and multiprocessing its processes, warm.

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
    """The socket of this process's server, which ends with it."""
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
