"""Moved to :mod:`semi_nnunet.data.annotated_classes`."""

from semi_nnunet.data.annotated_classes import (  # noqa: F401  moved
    get_declared_classes,
    get_declared_values,
    has_regions,
)
