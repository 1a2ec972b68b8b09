"""Parse commands of ours without running them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from semi_nnunet.cli.main import parse


def parse_command(words: Sequence[str | Path]) -> SimpleNamespace:
    """Return the arguments of ``semi_nnunet WORDS``, defaults included."""
    program, *rest = map(str, words)
    assert program == "semi_nnunet"
    function, arguments = parse(rest)
    parameters = inspect.signature(function).parameters.values()
    return SimpleNamespace(**{p.name: p.default for p in parameters} | arguments)
