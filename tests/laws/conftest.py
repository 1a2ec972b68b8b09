"""The marker ``law``: the letter, in docs/reliability.md, of the law that a test checks."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "law(letter): the law of docs/reliability.md that is tested")
