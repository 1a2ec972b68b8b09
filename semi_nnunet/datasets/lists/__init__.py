"""Published lists of cases; ``train`` is in the order in which the papers take labelled cases."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.util.files import read_json


def published_cases(name: str) -> dict[str, list[str]]:
    """ "train", "test" and perhaps "val" -> cases."""
    return dict(read_json(Path(__file__).with_name(f"{name}.json")))
