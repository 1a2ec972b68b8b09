"""Models and images shared with the tests of pseudo labels."""

from tests.pseudo_labels.conftest import cascade, pool, raw

__all__ = ["cascade", "pool", "raw"]
