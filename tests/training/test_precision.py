"""bfloat16 on a processor without it is right but slow: nobody should find out by waiting."""

import platform
from pathlib import Path

import pytest
import torch

from semi_nnunet.training.precision import compute_dtype, slow_dtype_warning

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mixed_precision", "device", "dtype"),
    [
        ("nnunet", "cuda", torch.float16),
        ("nnunet", "cpu", None),
        ("bfloat16", "cuda", torch.bfloat16),
        ("bfloat16", "cpu", torch.bfloat16),
        ("none", "cuda", None),
    ],
)
def test_what_networks_compute_in(mixed_precision, device, dtype):
    assert compute_dtype(mixed_precision, torch.device(device)) is dtype


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 says so in /proc/cpuinfo")
def test_the_warning_is_what_this_processor_says_of_itself():
    flags = (
        Path("/proc/cpuinfo")
        .read_text(encoding="utf-8")
        .split("flags", 1)[1]
        .split("\n", 1)[0]
        .split()
    )
    has = "avx512_bf16" in flags or "amx_bf16" in flags
    assert (slow_dtype_warning("bfloat16", CPU) is None) == has


@pytest.mark.parametrize(
    ("capabilities", "warns"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),  # torch does not say
    ],
)
def test_only_imitated_bfloat16_is_warned_of(monkeypatch, capabilities, warns):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    message = slow_dtype_warning("bfloat16", CPU)
    assert (message is not None) == warns
    assert message is None or "Fix: " in message
    assert slow_dtype_warning("none", CPU) is None
    assert slow_dtype_warning("nnunet", torch.device("cuda")) is None
