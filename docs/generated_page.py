"""Write a generated page, or with ``--check`` only compare it."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(page: Path, text: str) -> int:
    """Write the page; with ``--check`` print how to update it if it is outdated.

    Returns:
        Exit code: 1 for an outdated page.
    """
    if "--check" not in sys.argv:
        page.write_text(text, encoding="utf-8")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{page.name} is outdated. Fix: python {' '.join(sys.argv).replace(' --check', '')}")
    return 1
