"""Folders of a data set without anything in them."""

from tests.runs.conftest import empty

__all__ = ["empty"]
