"""Checkpoints that survive a crash and hold tensors and plain values only.

A file has nnU-Net's keys, with the deployed network under ``network_weights``, so that stock
prediction reads it; what resuming needs beyond that is under ``semi``. They are read with
``weights_only=True``: a file that travels cannot execute code. A user who trusts the author of
another file as one trusts a program says so by the variable :data:`EXECUTE`.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import write_atomically

DOS_FOLDER = 0x10
STOCK_VALUES: list[Any] = [  # what nnU-Net's own trainers store beside tensors and plain values
    np.dtype,
    np.float64(0).__reduce__()[0],  # what a numpy scalar is rebuilt with
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u8", "?")),
]
EXECUTE = "SEMI_NNUNET_EXECUTE_CHECKPOINTS"  # set to 1: files that can execute code are read
PRETRAINED = "-pretrained_weights"  # the option of nnUNetv2_train
LATEST = "checkpoint_latest.pth"
KINDS = {"trainer_name": str, "init_args": dict, "current_epoch": int, "semi": dict}
NEWEST_FIRST = ("checkpoint_final.pth", LATEST, "checkpoint_best.pth")


def plain(value: Any) -> Any:
    """``value`` with numpy values, devices and paths as what ``weights_only=True`` reads back."""
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (torch.device, Path)):
        return str(value)
    return value


def save(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write ``checkpoint`` to ``path``; a crash or a full disk leaves the previous file intact."""
    content = plain(checkpoint)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # by its name, torch would not tell why it fails
            torch.save(content, file)

    write_atomically(path, write, bytes_of(content))


def bytes_of(content: Any) -> int:
    """The bytes of all tensors in a checkpoint; one that it holds twice is written once."""
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


def read(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this package.

    Raises:
        UserError: the file is damaged, or holds something that is no tensor or plain value.
    """
    plain_values = os.environ.get(EXECUTE) != "1"
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location=device, weights_only=plain_values)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"such as {found[1]}, " if found else ""
        raise UserError(
            f"{path} holds more than tensors and plain values, {what}and is not opened, because "
            f"such a file can execute code",
            fix=f"give a checkpoint that nnU-Net or semi_nnunet "
            f"wrote; if you trust its author as you trust a program, set {EXECUTE}=1",
        ) from error
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(
            f"{path} cannot be read ({error})", fix="mend the path or its permissions"
        ) from error
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise  # the file is not to blame
    except Exception as error:  # a flipped byte can raise almost anything in zipfile and torch
        raise UserError(
            f"{path} is damaged ({error}). ",
            fix="delete it; an older checkpoint of the folder is then used",
        ) from error
    if wrong := _wrong_with(checkpoint):
        raise UserError(f"{path} is no nnU-Net checkpoint: {wrong}", fix="give another")
    return checkpoint


def _wrong_with(content: Any) -> str | None:
    """What a file holds that no checkpoint does, though it is of tensors and plain values."""
    if not isinstance(content, dict) or "network_weights" not in content:
        return "it lacks 'network_weights'"
    weights = content["network_weights"]
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        return "'network_weights' must be tensors by their names"
    for key, value in weights.items():
        if not isinstance(value, torch.Tensor) or not _is_array(value):
            return f"the weights {key!r} must be an array of numbers"
    for key, kind in KINDS.items():
        if key in content and not isinstance(content[key], kind):
            return f"{key!r} must be of type {kind.__name__}, got {content[key]!r:.80}"
    axes = content.get("inference_allowed_mirroring_axes") or ()
    if not (isinstance(axes, (list, tuple)) and all(axis in (0, 1, 2) for axis in axes)):
        return f"'inference_allowed_mirroring_axes' must be of 0, 1 and 2, got {axes!r:.80}"
    return None


def _is_array(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a number for each of its elements in memory, as weights do."""
    usual = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized)
    return usual and not (tensor.is_meta or tensor.is_complex())


def read_of_any_trainer(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours or of nnU-Net's own trainers, which holds numpy scalars, too.

    Raises:
        UserError: as :func:`read`.
    """
    with torch.serialization.safe_globals(STOCK_VALUES):
        return read(path, device)


def check_pretrained_weights(words: Sequence[str] | None = None) -> None:
    """Check the file of ``-pretrained_weights`` before nnU-Net's loader, which executes code.

    nnU-Net does not tell a trainer about this file, therefore the command line is looked at.

    Args:
        words: of the command line; None: of this process.

    Raises:
        UserError: as :func:`read`.
    """
    words = sys.argv[1:] if words is None else words
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if len(option) > len("-p") and PRETRAINED.startswith(option):  # argparse takes a beginning
            read_of_any_trainer(value if equals else following)


def _check_archive(path: str | Path) -> None:
    """What torch does not look at when it reads: checksums, and tensors marked as folders.

    It would fill such a tensor with whatever is in the memory.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged} is wrong")
        for entry in archive.infolist():
            if entry.external_attr & DOS_FOLDER:
                raise zipfile.BadZipFile(f"{entry.filename} is marked as a folder")


def read_this(
    path: str | Path, device: torch.device | str
) -> tuple[dict[str, Any], Path, list[str]]:
    """Read ``path`` and no other file; returns what :func:`read_newest_valid` does."""
    return read(path, device), Path(path), []


def read_newest_valid(
    path: str | Path, device: torch.device | str
) -> tuple[dict[str, Any], Path, list[str]]:
    """Read the most advanced readable checkpoint of the folder of ``path``, to continue from.

    nnU-Net names ``path`` by what exists; it may be damaged, or older than the best one.

    Returns:
        The checkpoint, the file it came from, and a message for every file that was passed over.

    Raises:
        UserError: none can be read.
    """
    path = Path(path)
    others = [path.with_name(name) for name in NEWEST_FIRST if name != path.name]
    skipped: list[str] = []
    newest: tuple[dict[str, Any], Path] | None = None
    for candidate in [path, *(other for other in others if other.is_file())]:
        try:
            checkpoint = read(candidate, device)
        except UserError as error:
            skipped.append(str(error))
            continue
        if newest is None or _progress(checkpoint) > _progress(newest[0]):
            newest = checkpoint, candidate
        if candidate.name == NEWEST_FIRST[0]:
            break
    if newest is None:
        raise UserError("no checkpoint of the folder can be read:\n  " + "\n  ".join(skipped))
    return *newest, skipped


def _progress(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs, and steps of the next one, that are done."""
    steps = checkpoint.get("semi", {}).get("step_in_epoch", 0)
    return int(checkpoint.get("current_epoch", 0)), int(steps)


def told(
    read: tuple[dict[str, Any], Path, Sequence[str]], say: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """Say which file was read, and which were passed over; returns content and path."""
    content, path, skipped = read
    for message in skipped:
        say(f"WARNING: {message}")
    say(f"Loaded {path}")
    return content, str(path)


def identity(
    plans: PlansManager,
    trainer: str,
    configuration: str,
    fold: int | str,
    channels: int,
    heads: int,
) -> dict[str, Any]:
    """What must agree between a checkpoint and the training that continues from it.

    Args:
        plans: nnU-Net's.
        trainer, configuration: names.
        fold: number, or "all".
        channels: of the network's input.
        heads: classes or regions.
    """
    one = plans.get_configuration(configuration)
    return {
        "trainer": trainer,
        "dataset": plans.dataset_name,
        "configuration": configuration,
        "plans": plans.plans_name,
        "fold": fold,
        "classes or regions": heads,
        "input channels": channels,
        "architecture": one.configuration["architecture"],
        "patch size": list(one.patch_size),
    }


def check_compatible(
    checkpoint: Mapping[str, Any], path: str | Path, expected: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint of another trainer, configuration, plan or number of classes.

    Args:
        checkpoint: as read.
        path: for the message.
        expected: what this training is; compared with ``checkpoint["semi"]["identity"]``.

    Raises:
        UserError: naming everything that differs.
    """
    if "semi" not in checkpoint:
        raise UserError(
            f"{path} was written by {checkpoint.get('trainer_name', 'another trainer')}, not by "
            f"{expected['trainer']}: it lacks what resuming needs. "
            f"",
            fix="pass it with -pretrained_weights to start from its weights",
        )
    identity = checkpoint["semi"]["identity"]
    problems = [
        Problem(
            key,
            f"this training has {value!r}, the checkpoint {identity.get(key)!r}",
            "run the command the checkpoint was made with",
        )
        for key, value in plain(expected).items()
        if identity.get(key) != value
    ]
    raise_if_any(f"{path} belongs to another training:", problems)


def tell_changes(
    semi: Mapping[str, Any],
    settings: Mapping[str, Any],
    cases: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
) -> None:
    """Say what has changed since a checkpoint was written.

    Args:
        semi: what the checkpoint has under "semi".
        settings, cases: of now.
        say: prints a line into the training's log.
    """
    if changed := changes(semi["settings"], plain(settings), semi["cases"], cases):
        say(f"WARNING: settings changed since the checkpoint: {'; '.join(changed)}")


def changes(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    cases_then: Mapping[str, Sequence[str]],
    cases_now: Mapping[str, Sequence[str]],
) -> list[str]:
    """The settings and cases that are no longer those of a checkpoint, each as a short text.

    Args:
        then, now: settings; one that an earlier version did not have is as now.
        cases_then, cases_now: kind -> cases; a kind that the checkpoint does not tell is as now.
    """
    found = [f"{key}: {was} -> {now[key]}" for key, was in then.items() if now.get(key, was) != was]
    for kind, cases in cases_now.items():
        before = set(cases_then.get(kind, cases))
        if before != set(cases):
            found.append(f"{kind} cases: {len(before)} -> {len(cases)}")
    return found
