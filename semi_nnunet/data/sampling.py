"""Moved to :mod:`semi_nnunet.data.patients` and :mod:`semi_nnunet.data.loading`."""

from typing import Any

from semi_nnunet.data.patients import read_pseudo_labelled_cases  # noqa: F401  moved


def __getattr__(name: str) -> Any:
    from semi_nnunet.data import loading  # slow to import

    return getattr(loading, name)
