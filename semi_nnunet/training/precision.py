"""What the networks compute in during training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def compute_dtype(mixed_precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype that the setting ``mixed_precision`` asks for; None: the weights' own float32."""
    if mixed_precision == "nnunet":
        return torch.float16 if device.type == "cuda" else None
    return torch.bfloat16 if mixed_precision == "bfloat16" else None


def slow_dtype_warning(mixed_precision: str, device: torch.device) -> str | None:
    """What to say where ``device`` only imitates what is computed in: right numbers, but slowly."""
    if compute_dtype(mixed_precision, device) != torch.bfloat16:
        return None
    if device.type == "cuda":
        slow = not torch.cuda.is_bf16_supported(including_emulation=False)
        return bfloat16_warning("this GPU", "float16") if slow else None
    if device.type != "cpu" or cpu_capabilities().get("architecture") != "x86_64":
        return None
    if computes_bfloat16_fast():
        return None
    return bfloat16_warning(f"this CPU (no {' or '.join(CPU_BFLOAT16)})", "float32")


def computes_bfloat16_fast() -> bool:
    """Whether the CPU has instructions for bfloat16, as far as PyTorch tells."""
    return any(cpu_capabilities().get(instructions) for instructions in CPU_BFLOAT16)


def cpu_capabilities() -> Mapping[str, Any]:
    """What PyTorch tells of the CPU; {}: nothing."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def bfloat16_warning(device: str, instead: str) -> str:
    return (
        f"WARNING: mixed_precision=bfloat16, which {device} imitates: steps take several times as "
        f"long. Fix: semi_nnunet plan ... --set mixed_precision=nnunet ({instead})"
    )
