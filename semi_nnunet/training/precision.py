"""The dtype that networks compute in during training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def compute_dtype(mixed_precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype of the setting ``mixed_precision``, or None for float32.

    >>> compute_dtype("bfloat16", torch.device("cpu"))
    torch.bfloat16
    """
    if mixed_precision == "nnunet":
        return torch.float16 if device.type == "cuda" else None
    return torch.bfloat16 if mixed_precision == "bfloat16" else None


def describe_slow_dtype(mixed_precision: str, device: torch.device) -> str | None:
    """Return a warning if ``device`` emulates bfloat16, which is correct but slow; or None."""
    if compute_dtype(mixed_precision, device) != torch.bfloat16:
        return None
    if device.type == "cuda":
        emulated = not torch.cuda.is_bf16_supported(including_emulation=False)
        name, instead = "this GPU", "float16"
    else:
        is_x86 = device.type == "cpu" and read_cpu_capabilities().get("architecture") == "x86_64"
        emulated = is_x86 and not computes_bfloat16_fast()
        name, instead = f"this CPU (no {' or '.join(CPU_BFLOAT16)})", "float32"
    if not emulated:
        return None
    return (
        f"WARNING: mixed_precision=bfloat16, which {name} emulates: steps take several times as "
        f"long. Fix: semi_nnunet plan ... --set mixed_precision=nnunet ({instead})"
    )


def computes_bfloat16_fast() -> bool:
    """Return whether PyTorch knows that the CPU has instructions for bfloat16."""
    return any(read_cpu_capabilities().get(instructions) for instructions in CPU_BFLOAT16)


def read_cpu_capabilities() -> Mapping[str, Any]:
    """Return PyTorch's description of the CPU; empty in versions without one."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
