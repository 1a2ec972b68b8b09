"""Distinguish failures of the machine from failures of the data."""

from __future__ import annotations

import torch

DEVICES = ("CUDA", "cuDNN", "CUBLAS", "NCCL", "HIP", "MPS", "XPU")  # in messages of torch
NO_MEMORY = ("out of memory", "allocate memory", "not enough memory")  # CUDA's, Linux', Windows'


def is_of_memory(error: Exception) -> bool:
    """Return whether the memory of the device or the host was too small.

    >>> is_of_memory(RuntimeError("CUDA error: out of memory"))
    True
    """
    message = str(error).lower()
    is_typed = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_typed or any(words in message for words in NO_MEMORY)


def is_of_machine(error: Exception) -> bool:
    """Return whether the disk or the device failed; torch's errors differ only in their words."""
    is_device = isinstance(error, RuntimeError) and any(name in str(error) for name in DEVICES)
    return is_device or isinstance(error, OSError)
