"""Errors of the machine, such as a full memory, translated into messages with a fix."""

from __future__ import annotations

from pathlib import Path

import torch._dynamo
from torch import distributed as dist

from semi_nnunet.loading.steps import StepLoader
from semi_nnunet.util.errors import UserError, disk_error_message
from semi_nnunet.util.failures import is_of_memory
from semi_nnunet.util.files import could_not_write

INTACT = "The checkpoints are intact; nnUNetv2_train continues from the newest with --c"
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo


def tolerate_compiler_errors() -> None:
    """Let networks that torch.compile cannot compile run uncompiled, with torch's warning.

    nnU-Net ends with an error of the compiler, which may simply not be installed.
    """
    torch._dynamo.config.suppress_errors = True


def raise_if_machine_fault(
    error: RuntimeError | OSError, folder: str | Path, loader: StepLoader | None = None
) -> None:
    """Raise a message with a fix if memory ran out, a process was killed, or the disk is full.

    Args:
        error: error that ended the training.
        folder: folder of the results, named if an error of the disk names no file.
        loader: loader of the training's batches; it knows the cases of killed processes.
    """
    if isinstance(error, OSError):
        if disk_error_message(error) is not None and error.filename is None:
            raise could_not_write(f"to {folder}", error, folder, left=INTACT) from error
        return
    text = str(error)
    first_line = text.partition("\n")[0]
    if is_of_memory(error):
        raise UserError(
            f"the memory does not suffice for a step: {first_line:.300}",
            fix=f"semi_nnunet plan with --set and a smaller labelled_batch_size and "
            f"unlabelled_batch_size (accumulate_batches=2 makes two small batches one step), or a "
            f"smaller --patch; or end other programs that use the memory. {INTACT}",
        ) from error
    if "DataLoader worker" in text:
        cases = [] if loader is None else loader.list_cases_of_ended_workers()
        working_on = f" It was at work on {', '.join(cases)}." if cases else ""
        raise UserError(
            f"a process that prepares batches has ended: {first_line:.300}{working_on} The system "
            f"kills such processes if memory runs out",
            fix=f"set nnUNet_n_proc_DA to fewer of them, or free memory. {INTACT}",
        ) from error
    if dist.is_initialized() and any(message in text for message in LOST_CONNECTION):
        raise UserError(
            f"another process of this training has ended: {first_line:.300} See its own messages "
            f"for the cause; the system kills processes if memory runs out. {INTACT}"
        ) from error


def raise_if_batch_too_small(error: ValueError) -> None:
    """Raise a message with a fix if batch normalisation got a single value for each channel."""
    if "more than 1 value per channel" in str(error):
        raise UserError(
            "this network normalises over the batch what it pools to one value, and needs at "
            "least 2 patches of each kind on each GPU, got 1",
            fix="raise labelled_batch_size and unlabelled_batch_size in plans['semi'], or train on "
            "fewer GPUs",
        ) from error
