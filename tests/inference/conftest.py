"""Models and images shared with the tests of pseudo labels."""

from tests.pseudo_labels.conftest import cascade, pool

__all__ = ["cascade", "pool"]
