"""Calls of docker and podman: a killed client leaves its container running."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ENGINES = ("docker", "podman", "nerdctl")
ID_FILE = "--cidfile"
PATIENCE_S = 30.0  # for an engine to kill a container, and for its client to notice


@contextmanager
def container_of(command: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The same call, and how the container that it starts is killed.

    Args:
        command: words such as docker container run --rm NAME; any other program may be called.

    Yields:
        The words to run, of which the engine is told to write the container's id into a file, and
        those of :func:`kill_container`; the latter are empty where no engine is called.
    """
    words = list(command)
    run = run_of(words)
    if run is None:
        yield words, []
        return
    own = next((word for word in words if word.split("=")[0] == ID_FILE), None)
    if own is not None:  # the user wants to know the id, too
        given = words[words.index(own) + 1] if own == ID_FILE else own.split("=", 1)[1]
        yield words, [*words[:run], given]
        return
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "id")
        yield [*words[: run + 1], ID_FILE, file, *words[run + 1 :]], [*words[:run], file]


def run_of(words: Sequence[str]) -> int | None:
    """Where an engine's command ``run`` is among the words, also behind sudo; None: nowhere."""
    names = [Path(word).name for word in words]
    engine = next((n for n, name in enumerate(names[:2]) if name in ENGINES), None)
    return words.index("run", engine) if engine is not None and "run" in words[engine:] else None


def kill_container(how: Sequence[str], client: subprocess.Popen[str]) -> None:
    """Kill a container that :func:`container_of` told of, and wait for its client.

    A container that has ended, or has not begun, is left alone.

    Args:
        how: the engine's words, and last the file of the container's id.
        client: the engine's process, which ends with its container.
    """
    *engine, file = how
    with suppress(OSError, subprocess.SubprocessError):
        name = Path(file).read_text(encoding="utf-8").strip()
        subprocess.run([*engine, "kill", name], capture_output=True, timeout=PATIENCE_S, check=True)
        client.wait(PATIENCE_S)
