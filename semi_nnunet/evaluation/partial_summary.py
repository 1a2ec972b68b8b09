"""Former home of :func:`leave_out_unknown`."""

from semi_nnunet.evaluation.tables import leave_out_unknown

__all__ = ["leave_out_unknown"]
