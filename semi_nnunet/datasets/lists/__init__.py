"""Published lists of cases; ``train`` is in the order in which papers use labelled cases."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.util.files import read_json


def load_published_cases(name: str) -> dict[str, list[str]]:
    """Return the cases of "train", "test" and perhaps "val"."""
    return dict(read_json(Path(__file__).with_name(f"{name}.json")))
