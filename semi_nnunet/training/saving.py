"""Write checkpoints beside the training: a thread writes a snapshot while the next steps run.

A checkpoint of nnU-Net's default 3-D network with a teacher (357 MiB) takes seconds to write, and a
fraction of one to copy (scripts/benchmark_save.py).
"""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.training import checkpoints
from semi_nnunet.util.failures import is_of_memory


class CheckpointWriter:
    """Writes checkpoints, one after the other, those of :meth:`beside` in a thread.

    Whoever forks waits for the thread, so that no child inherits a lock that it holds.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._is_running = self._is_beside = False
        _WRITERS.add(self)

    @contextmanager
    def running(self, say: Callable[[str], None]) -> Iterator[None]:
        """Around a training, whose last checkpoint is written when the block ends.

        Args:
            say: is told what could not be written, where another error ends the block.

        Raises:
            UserError: a checkpoint could not be written.
        """
        self._is_running = True
        try:
            yield
        except BaseException:
            self._join()
            if self._error is not None:
                say(f"WARNING: {self._error}")
            raise
        finally:
            self._is_running = False
        self.wait()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Inside the block, what is saved is written while a running training goes on."""
        self._is_beside = self._is_running
        try:
            yield
        finally:
            self._is_beside = False

    def save(self, content: Mapping[str, Any], path: str | Path) -> None:
        """Write a checkpoint, as it is now, when the one before is written.

        Raises:
            UserError: this one, or the one before, could not be written.
        """
        self.wait()
        if not self._is_beside:
            checkpoints.save(content, path)
            return
        try:
            taken = snapshot(checkpoints.plain(content))
        except (MemoryError, RuntimeError) as error:
            if not is_of_memory(error):
                raise
            checkpoints.save(content, path)  # which needs no copy
            return

        def write() -> None:
            try:
                checkpoints.save(taken, path)
            except BaseException as error:  # wait raises it
                self._error = error

        self._thread = threading.Thread(target=write, daemon=True, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            UserError: it could not be.
        """
        self._join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def snapshot(content: Any) -> Any:
    """A copy on the CPU that is saved to the same bytes as CPU tensors; nothing changes it later.

    Args:
        content: tensors and plain values in dictionaries, lists and tuples. Tensors that share
            memory share the copy, too.
    """
    storages: dict[int, torch.UntypedStorage] = {}
    tensors: dict[int, torch.Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in tensors:
                tensors[id(value)] = of_tensor(value)
            return tensors[id(value)]
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(copied(item) for item in value)
        return copy.deepcopy(value)

    def of_tensor(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in storages:
            storages[storage._cdata] = storage.clone() if value.is_cpu else storage.cpu()
        same = torch.empty(0, dtype=value.dtype)
        where = value.storage_offset(), value.size(), value.stride()
        return same.set_(storages[storage._cdata], *where).requires_grad_(value.requires_grad)

    return copied(content)


_WRITERS: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def _wait_before_fork() -> None:
    for writer in [*_WRITERS]:
        writer._join()


os.register_at_fork(before=_wait_before_fork)
