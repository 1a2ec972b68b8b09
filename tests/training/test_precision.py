"""The compute dtype, and a warning of processors that emulate bfloat16."""

import platform
from pathlib import Path

import pytest
import torch

from semi_nnunet.training.precision import compute_dtype, describe_slow_dtype

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
def test_the_compute_dtype_of_a_setting(mixed_precision, device, dtype):
    assert compute_dtype(mixed_precision, torch.device(device)) is dtype


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 says so in /proc/cpuinfo")
def test_the_warning_agrees_with_the_flags_of_this_processor():
    flags = (
        Path("/proc/cpuinfo")
        .read_text(encoding="utf-8")
        .split("flags", 1)[1]
        .split("\n", 1)[0]
        .split()
    )
    is_fast = "avx512_bf16" in flags or "amx_bf16" in flags
    assert (describe_slow_dtype("bfloat16", CPU) is None) == is_fast


@pytest.mark.parametrize(
    ("capabilities", "warns"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, False),
        ({"architecture": "aarch64"}, False),  # unknown to torch
    ],
)
def test_only_emulated_bfloat16_is_warned_of(monkeypatch, capabilities, warns):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    message = describe_slow_dtype("bfloat16", CPU)
    assert (message is not None) == warns
    assert message is None or "Fix: " in message
    assert describe_slow_dtype("none", CPU) is None
    assert describe_slow_dtype("nnunet", torch.device("cuda")) is None
