"""Moved to :mod:`semi_nnunet.data.loading`."""

from semi_nnunet.data.loading import get_loader_dataset, make_unlabelled_loader  # noqa: F401  moved
