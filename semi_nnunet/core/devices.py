"""The device to compute on."""

from __future__ import annotations

import torch

from semi_nnunet.util.errors import UserError


def choose_device(requested: str | None = None, option: str = "--device") -> str:
    """Return the requested device, or "cuda" if there is a GPU, else "cpu".

    Args:
        requested: "cpu", "cuda" or "mps", or None.
        option: with which the user chooses it, for the error.

    Raises:
        UserError: this machine has no such device.

    >>> choose_device("cpu")
    'cpu'
    """
    if requested is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if requested == "cuda" and torch.cuda.device_count() == 0:
        raise UserError(f"{option} cuda needs a GPU, found none", fix=f"{option} cpu")
    if requested == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"{option} mps needs a GPU of Apple, found none", fix=f"{option} cpu")
    return requested
