"""Checkpoints that survive a crash and hold only tensors and plain values.

A file has nnU-Net's keys, with the deployed network under ``network_weights``, so that stock
prediction reads it; the key ``semi`` holds the rest of what resuming needs. Files are read with
``weights_only=True``, so that a file from elsewhere cannot execute code. Users who trust the author
of another file as they trust a program can set the variable :data:`EXECUTE`.
"""

from __future__ import annotations

import copy
import os
import pickle
import re
import sys
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.networks.pretrained import ADAPTATION_KEY
from semi_nnunet.preprocessing.manifest import describe_source_changes
from semi_nnunet.raw.layout import FINAL_CHECKPOINT
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.failures import is_of_memory
from semi_nnunet.util.files import write_atomically
from semi_nnunet.util.names import list_first

DOS_FOLDER = 0x10
STOCK_VALUES: list[Any] = [  # types in checkpoints of nnU-Net's own trainers
    np.dtype,
    np.float64(0).__reduce__()[0],  # the function that rebuilds a numpy scalar
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u8", "?")),
]
EXECUTE = "SEMI_NNUNET_EXECUTE_CHECKPOINTS"  # set to 1: files that can execute code are read
PRETRAINED = "-pretrained_weights"  # option of nnUNetv2_train
LATEST = "checkpoint_latest.pth"
KEY_TYPES = {"trainer_name": str, "init_args": dict, "current_epoch": int, "semi": dict}
NEWEST_FIRST = (FINAL_CHECKPOINT, LATEST, "checkpoint_best.pth")

LoadedCheckpoint = tuple[dict[str, Any], Path, list[str]]  # content, file, skipped files


# ---- write


def to_plain_values(value: Any) -> Any:
    """Return ``value`` with numpy values, devices and paths as plain Python values."""
    if isinstance(value, Mapping):
        return {to_plain_values(key): to_plain_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_plain_values(item) for item in value]
    if isinstance(value, tuple):
        return tuple(to_plain_values(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (torch.device, Path)):
        return str(value)
    return value


def save(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint; a crash or a full disk leaves the previous file intact."""
    content = to_plain_values(checkpoint)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # given a name, torch would hide the cause of an error
            torch.save(content, file)

    write_atomically(path, write, count_tensor_bytes(content))


def count_tensor_bytes(content: Any) -> int:
    """Return the bytes of all tensors in a checkpoint; shared memory counts once."""
    storages: dict[int, int] = {}

    def count(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            for item in value.values():
                count(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                count(item)

    count(content)
    return sum(storages.values())


class CheckpointWriter:
    """Writes checkpoints one after the other, at the end of an epoch in a thread.

    The thread writes a copy while the next steps run. A checkpoint of nnU-Net's default 3-D network
    with a teacher (357 MiB) takes seconds to write, and a fraction of a second to copy
    (scripts/benchmark_save.py). Forks wait for the thread, so that no child inherits its locks.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._is_running = self._in_background = False
        _WRITERS.add(self)

    @contextmanager
    def running(self, say: Callable[[str], None]) -> Iterator[None]:
        """Wait for the last checkpoint at the end of the block, in which a training runs.

        Args:
            say: receives the error of the last checkpoint if another error ends the block.

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
    def in_background(self) -> Iterator[None]:
        """Write the checkpoints of the block in a thread, if a training runs."""
        self._in_background = self._is_running
        try:
            yield
        finally:
            self._in_background = False

    def save(self, content: Mapping[str, Any], path: str | Path) -> None:
        """Write the current content of a checkpoint as soon as the previous one is written.

        Raises:
            UserError: this or the previous checkpoint could not be written.
        """
        self.wait()
        if not self._in_background:
            save(content, path)
            return
        try:
            snapshot = copy_to_cpu(to_plain_values(content))
        except (MemoryError, RuntimeError) as error:
            if not is_of_memory(error):
                raise
            save(content, path)  # needs no copy
            return

        def write() -> None:
            try:
                save(snapshot, path)
            except BaseException as error:  # wait() raises it
                self._error = error

        self._thread = threading.Thread(target=write, daemon=True, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            UserError: it could not be written.
        """
        self._join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def copy_to_cpu(content: Any) -> Any:
    """Return an independent copy on the CPU that is saved to the same bytes.

    >>> weights = torch.zeros(3)
    >>> copied = copy_to_cpu({"network_weights": {"bias": weights}})
    >>> weights += 1
    >>> copied
    {'network_weights': {'bias': tensor([0., 0., 0.])}}

    Args:
        content: tensors and plain values in dictionaries, lists and tuples. Tensors that share
            memory also share it in the copy.
    """
    storages: dict[int, torch.UntypedStorage] = {}
    tensors: dict[int, torch.Tensor] = {}

    def copy_value(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in tensors:
                tensors[id(value)] = copy_tensor(value)
            return tensors[id(value)]
        if isinstance(value, dict):
            return {key: copy_value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(copy_value(item) for item in value)
        return copy.deepcopy(value)

    def copy_tensor(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in storages:
            storages[storage._cdata] = storage.clone() if value.is_cpu else storage.cpu()
        view = value.storage_offset(), value.size(), value.stride()
        tensor = torch.empty(0, dtype=value.dtype).set_(storages[storage._cdata], *view)
        return tensor.requires_grad_(value.requires_grad)

    return copy_value(content)


_WRITERS: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def _wait_before_fork() -> None:
    for writer in [*_WRITERS]:
        writer._join()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_wait_before_fork)


# ---- read


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this package.

    Raises:
        UserError: the file is damaged, or holds more than tensors and plain values.
    """
    weights_only = os.environ.get(EXECUTE) != "1"
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location=device, weights_only=weights_only)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)", str(error))
        example = f"such as {match[1]}, " if match else ""
        raise UserError(
            f"{path} holds more than tensors and plain values, {example}and is not opened, because "
            f"such a file can execute code",
            fix=f"give a checkpoint that nnU-Net or semi_nnunet wrote; if you trust its author as "
            f"you trust a program, set {EXECUTE}=1",
        ) from error
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(
            f"{path} cannot be read ({error})", fix="correct the path or its permissions"
        ) from error
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise  # the file is not to blame
    except Exception as error:  # a flipped byte can raise almost anything in zipfile and torch
        raise UserError(
            f"{path} is damaged, or not a checkpoint of torch 1.6 or later ({error})",
            fix="copy it again or give another one; if it is of a training that you continue, "
            "delete it, and --c continues from an older checkpoint",
        ) from error
    if defect := _find_defect(checkpoint):
        raise UserError(f"{path} is no nnU-Net checkpoint: {defect}", fix="give another file")
    return checkpoint


def _find_defect(content: Any) -> str | None:
    """Return why plain content cannot be a checkpoint, or None."""
    if not isinstance(content, dict) or "network_weights" not in content:
        return "it lacks 'network_weights'"
    for key, key_type in KEY_TYPES.items():
        if key in content and not isinstance(content[key], key_type):
            return f"{key!r} must be of type {key_type.__name__}, got {content[key]!r:.80}"
    identity = content.get("semi", {}).get("identity")
    for key, value in {"identity": identity, ADAPTATION_KEY: content.get(ADAPTATION_KEY)}.items():
        if value is not None and not isinstance(value, dict):
            return f"{key!r} must be of type dict, got {value!r:.80}"
    averaged = content.get("semi", {}).get("averaged_with", [])
    if not isinstance(averaged, (list, tuple)):
        return f"'averaged_with' must be a list of networks, got {averaged!r:.80}"
    for weights in (content["network_weights"], *averaged):
        if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
            return "the weights of a network must be tensors by their names"
        for key, value in weights.items():
            if not isinstance(value, torch.Tensor) or not _is_array(value):
                return f"the weights {key!r} must be an array of numbers"
    axes = content.get("inference_allowed_mirroring_axes") or ()
    if not (isinstance(axes, (list, tuple)) and all(axis in (0, 1, 2) for axis in axes)):
        return f"'inference_allowed_mirroring_axes' must be of 0, 1 and 2, got {axes!r:.80}"
    return None


def _is_array(tensor: torch.Tensor) -> bool:
    """Return whether each element of a tensor is a number in memory."""
    is_dense = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized)
    return is_dense and not (tensor.is_meta or tensor.is_complex())


def read_of_any_trainer(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours or of nnU-Net's own trainers, which also holds numpy scalars.

    Raises:
        UserError: as :func:`read_checkpoint`.
    """
    with torch.serialization.safe_globals(STOCK_VALUES):
        return read_checkpoint(path, device)


def check_pretrained_weights(words: Sequence[str] | None = None) -> None:
    """Check the file of ``-pretrained_weights`` before nnU-Net's loader, which executes code.

    nnU-Net does not pass this file to a trainer, so it is taken from the command line.

    Args:
        words: command line; None for that of this process.

    Raises:
        UserError: as :func:`read_checkpoint`.
    """
    words = sys.argv[1:] if words is None else words
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if len(option) > len("-p") and PRETRAINED.startswith(option):  # argparse accepts a prefix
            read_of_any_trainer(value if equals else following)


def _check_archive(path: str | Path) -> None:
    """Raise if a checksum is wrong or a tensor is marked as a folder, which torch does not check.

    It would fill such a tensor with the current content of the memory.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged} is wrong")
        for entry in archive.infolist():
            if entry.external_attr & DOS_FOLDER:
                raise zipfile.BadZipFile(f"{entry.filename} is marked as a folder")


# ---- continue a training


def read_single(path: str | Path, device: torch.device | str) -> LoadedCheckpoint:
    """Read ``path`` and no other file; return the same as :func:`read_newest_valid`."""
    return read_checkpoint(path, device), Path(path), []


def read_newest_valid(path: str | Path, device: torch.device | str) -> LoadedCheckpoint:
    """Read the most advanced readable checkpoint in the folder of ``path``, to continue from.

    nnU-Net chooses ``path`` by its name. It may be damaged, or older than another one: a final
    checkpoint, for example, if the training was extended and interrupted.

    Returns:
        The checkpoint, its file, and a message for every file that was skipped.

    Raises:
        UserError: no checkpoint can be read.
    """
    path = Path(path)
    siblings = [path.with_name(name) for name in NEWEST_FIRST if name != path.name]
    skipped: list[str] = []
    newest: tuple[dict[str, Any], Path] | None = None
    for candidate in [path, *(sibling for sibling in siblings if sibling.is_file())]:
        try:
            checkpoint = read_checkpoint(candidate, device)
        except UserError as error:
            skipped.append(str(error))
            continue
        if newest is None or _progress(checkpoint) > _progress(newest[0]):
            newest = checkpoint, candidate
    if newest is None:
        raise UserError("no checkpoint of the folder can be read:\n  " + "\n  ".join(skipped))
    return *newest, skipped


def _progress(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of finished epochs, and of finished steps of the next epoch."""
    steps = checkpoint.get("semi", {}).get("step_in_epoch", 0)
    return int(checkpoint.get("current_epoch", 0)), int(steps)


def log_loaded_checkpoint(
    loaded: LoadedCheckpoint, say: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """Log which file was loaded and which were skipped; return content and path."""
    content, path, skipped = loaded
    for message in skipped:
        say(f"WARNING: {message}")
    say(f"Loaded {path}")
    return content, str(path)


def describe_training(
    plans: PlansManager,
    trainer: str,
    configuration: str,
    fold: int | str,
    channels: int,
    heads: int,
) -> dict[str, Any]:
    """Return everything that must be equal in a checkpoint and the training that loads it.

    Args:
        channels: number of input channels of the network.
        heads: number of classes or regions.
    """
    manager = plans.get_configuration(configuration)
    return {
        "trainer": trainer,
        "dataset": plans.dataset_name,
        "configuration": configuration,
        "plans": plans.plans_name,
        "fold": fold,
        "classes or regions": heads,
        "input channels": channels,
        "architecture": manager.configuration["architecture"],
        "patch size": list(manager.patch_size),
    }


def require_compatible(
    checkpoint: Mapping[str, Any], path: str | Path, expected: Mapping[str, Any]
) -> None:
    """Raise if a checkpoint belongs to another trainer, configuration, plan or set of classes.

    Args:
        expected: :func:`describe_training`, compared with ``checkpoint["semi"]["identity"]``.
    """
    if "semi" not in checkpoint:
        raise UserError(
            f"{path} was written by {checkpoint.get('trainer_name', 'another trainer')}, not by "
            f"{expected['trainer']}: it lacks what resuming needs",
            fix=f"pass it with {PRETRAINED} to start from its weights",
        )
    identity = checkpoint["semi"]["identity"]
    problems = [
        Problem(
            key,
            f"this training has {value!r}, the checkpoint {identity.get(key)!r}",
            "run the command the checkpoint was made with",
        )
        for key, value in to_plain_values(expected).items()
        if identity.get(key) != value
    ]
    raise_if_any(f"{path} belongs to another training:", problems)


def require_unchanged_cases(
    earlier: Mapping[str, Mapping[str, str]],
    current: Mapping[str, Mapping[str, str]],
    folder: str | Path,
) -> None:
    """Refuse to continue a training whose images or labels have changed since it began.

    Args:
        earlier: kind -> case -> what it was made from, when the checkpoint was written.
        current: the same, now.
        folder: of the training.

    Raises:
        UserError: naming the cases.
    """
    changes = [
        change
        for kind, sources in earlier.items()
        for change in describe_source_changes(sources, current.get(kind, {}))
    ]
    if changes:
        raise UserError(
            f"the training in {folder} began with other data; changed since: {list_first(changes)}",
            fix="move the folder away to train from the start, or restore these files and "
            "preprocess again",
        )


def log_changes(
    semi: Mapping[str, Any],
    settings: Mapping[str, Any],
    cases: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
) -> None:
    """Warn of settings and cases that changed since a checkpoint was written.

    Settings that an earlier version did not have, and groups of cases that it did not store, count
    as unchanged.

    Args:
        semi: content of the checkpoint's key "semi".
        cases: current cases by group, such as "unlabelled".
    """
    current = to_plain_values(settings)
    changes = [
        f"{key}: {value} -> {current[key]}"
        for key, value in semi["settings"].items()
        if current.get(key, value) != value
    ]
    for group, current_cases in cases.items():
        previous_cases = set(semi["cases"].get(group, current_cases))
        if previous_cases != set(current_cases):
            changes.append(f"{group} cases: {len(previous_cases)} -> {len(current_cases)}")
    if changes:
        say(f"WARNING: settings changed since the checkpoint: {'; '.join(changes)}")
