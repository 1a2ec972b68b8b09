"""Moved to :mod:`semi_nnunet.data.splitting`."""

from semi_nnunet.data.splitting import Transfer  # noqa: F401  moved
