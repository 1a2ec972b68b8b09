"""What a training says when the machine under it fails, and how it goes on where it can."""

from __future__ import annotations

from pathlib import Path

import torch._dynamo
from torch import distributed as dist

from semi_nnunet.data.loading import StepLoader
from semi_nnunet.util.errors import UserError, disk_error_message
from semi_nnunet.util.failures import is_of_memory
from semi_nnunet.util.files import could_not_write

INTACT = "The checkpoints are intact; nnUNetv2_train goes on from the newest with --c"
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo's words


def compile_or_go_on() -> None:
    """Let networks that torch.compile cannot translate run as they are, with torch's warning.

    nnU-Net ends with an error of the compiler, which may just not be installed.
    """
    torch._dynamo.config.suppress_errors = True


def raise_if_of_machine(
    error: RuntimeError | OSError, folder: str | Path, loader: StepLoader | None = None
) -> None:
    """Say what to do where memory ran out, a process was killed, or the disk is full.

    Args:
        error: that ends the training.
        folder: of its results; it is named where an error of the disk names no file.
        loader: of its batches, if there is one yet; it knows what a killed process was to read.

    Raises:
        UserError: the error is one of these.
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
            fix=f"semi_nnunet plan with "
            f"--set and a smaller labelled_batch_size and unlabelled_batch_size "
            f"(accumulate_batches=2 makes two small batches one step), or a smaller --patch; or "
            f"end what else uses the memory. {INTACT}",
        ) from error
    if "DataLoader worker" in text:
        cases = [] if loader is None else loader.cases_of_ended_workers()
        named = f" It was at work on {', '.join(cases)}." if cases else ""
        raise UserError(
            f"a process that prepares batches has ended: {first_line:.300}{named} The system kills "
            f"such processes where memory runs out",
            fix=f"set nnUNet_n_proc_DA to fewer of them, or free memory. {INTACT}",
        ) from error
    if dist.is_initialized() and any(one in text for one in LOST):
        raise UserError(
            f"another process of this training has ended: {first_line:.300} Its own messages say "
            f"why; the system kills processes where memory runs out. {INTACT}"
        ) from error
