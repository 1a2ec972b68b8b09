"""Moved to :mod:`semi_nnunet.data.splitting`."""

from semi_nnunet.data.splitting import FileTransfer  # noqa: F401  moved
