"""Whether an error is the fault of the machine or of what was worked on."""

from __future__ import annotations

import torch

DEVICES = ("CUDA", "cuDNN", "CUBLAS", "NCCL", "HIP", "MPS", "XPU")  # in messages of torch
NO_MEMORY = ("out of memory", "allocate memory", "not enough memory")  # CUDA's, Linux', Windows'


def is_of_memory(error: Exception) -> bool:
    """Whether there was too little memory, of the device or of the host."""
    said = str(error).lower()
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(words in said for words in NO_MEMORY)


def is_of_machine(error: Exception) -> bool:
    """Whether the disk or the device failed, not the image; torch's errors tell in words alone."""
    named = isinstance(error, RuntimeError) and any(name in str(error) for name in DEVICES)
    return named or isinstance(error, OSError)
