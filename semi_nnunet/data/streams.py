"""Moved to :mod:`semi_nnunet.data.loading`."""

from semi_nnunet.data.loading import cases_of_loader, unlabelled_like  # noqa: F401  moved
