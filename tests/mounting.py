"""Small file systems that are soon full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def mount_small(folder: Path, size: str) -> None:
    """Mount a file system of a size such as "1m" at the folder, or skip the test."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
