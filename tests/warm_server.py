"""The server of ``tests.warm``: imports, then forks a process for each client of SOCKET."""

from __future__ import annotations

import array
import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import multiprocessing.util
import os
import random
import select
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

CLIENT = str(Path(__file__).with_name("warm_client.py"))
MOST_FILES = 64  # that a client may pass
INTERRUPTED = -signal.SIGINT
OWN = ("nnunetv2", "semi_nnunet", "tests")  # they read the environment when they are imported


def preload() -> None:
    """Import modules for all commands, and forget those that read the environment."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    importlib.import_module("tests.imported")
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]
    del sys.path[0]


def serve(path: str) -> str:
    """Answer clients; return in a fork, with the code to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave nothing behind
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:  # our parent has ended
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return keep(connection)
        connection.close()


def keep(connection: socket.socket) -> str:
    """Fork for a client, pass its signals on, and send the exit status back."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files = received(connection)
    pid = os.fork()
    if pid == 0:
        connection.close()
        return become(request, files)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            break
        numbers = connection.recv(64) or bytes([signal.SIGKILL])  # or the client was killed
        for number in numbers:
            signal_group(pid, number)
    _, status = os.waitpid(pid, 0)
    signal_group(pid, signal.SIGKILL)  # what it left behind
    with contextlib.suppress(OSError):
        connection.sendall(status.to_bytes(2, "big"))
    os._exit(0)


def received(connection: socket.socket) -> tuple[dict[str, object], list[int]]:
    """Receive the request of a client and its open files."""
    files = array.array("i")
    head, rights, *_ = connection.recvmsg(8, socket.CMSG_SPACE(MOST_FILES * files.itemsize))
    for _, _, data in rights:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    left, text = int.from_bytes(head, "big"), b""
    while left > len(text):
        text += connection.recv(left - len(text))
    return json.loads(text), list(files)


def become(request: dict[str, object], files: list[int]) -> str:
    """Make this fork look like a new Python process for the request."""
    import numpy as np
    import torch

    os.setsid()
    numbers = request["files"]
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3 + max(numbers)) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(aside, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            ignored = number in request["ignored"] or number == signal.SIGPIPE
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
    if signal.SIGINT not in request["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    np.random.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    path = sys.argv[1]
    multiprocessing.util.spawnv_passfds = spawning_warm(lambda: path)
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = ["", *filter(None, added), *sys.path[1:]]
    sys.argv[:] = ["-c", *request["words"]]
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(opened(0)), encoding="utf-8")
    sys.stdout = sys.__stdout__ = output(1, unbuffered)
    sys.stderr = sys.__stderr__ = output(2, unbuffered=True)
    return request["code"]


def spawning_warm(server: Callable[[], str]) -> Callable[..., int]:
    """Return a function with which multiprocessing starts its processes as forks of a server.

    Args:
        server: returns its socket.
    """
    cold = multiprocessing.util.spawnv_passfds

    def spawnv_passfds(python: bytes | str, words: list[Any], files: Iterable[int]) -> int:
        *options, code, kind = map(os.fsdecode, words)
        if kind != "--multiprocessing-fork" or options[-1] != "-c":  # such as what tracks resources
            return cold(python, words, files)
        numbers = ",".join(map(str, files))
        command = [sys.executable, "-I", "-S", CLIENT, server(), numbers, code, kind]
        return cold(os.fsencode(sys.executable), command, files)

    return spawnv_passfds


def output(file: int, unbuffered: bool) -> io.TextIOWrapper:
    """Open stdout or stderr as Python does."""
    raw = opened(file)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding="utf-8",
        errors="strict" if file == 1 else "backslashreplace",
        line_buffering=os.isatty(file),
        write_through=unbuffered,
    )


def opened(file: int) -> io.FileIO:
    return io.FileIO(file, "rb" if file == 0 else "wb", closefd=False)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process and its children, or only to it if it has no group yet."""
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)


def run(code: str) -> int:
    """Run a program like ``-c``; return its exit status."""
    sys.modules["__main__"] = types.ModuleType("__main__")  # of no file
    try:
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def leave(status: int) -> None:
    """End like Python, but without freeing the objects of all modules, which takes seconds."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        status = status or 120
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 255)


if __name__ == "__main__":
    preload()
    gc.freeze()  # pages of what is imported stay shared
    leave(run(serve(sys.argv[1])))
