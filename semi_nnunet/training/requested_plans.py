"""The plans file that nnU-Net's entry point was asked to train with.

nnU-Net gives a trainer the content of the file only. If the names inside are not those of the file,
as in plans copied by hand, the results would go to other plans.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semi_nnunet.raw.plans import require_own_names

ENTRY_POINT = ("nnunetv2.run.run_training", "get_trainer_from_args", "plans_file")


def require_requested_names(plans: Mapping[str, Any]) -> None:
    """Raise a :class:`UserError` if plans have other names inside than the file that was asked for.

    Plans that do not come from nnU-Net's entry point are not checked.
    """
    if (path := find_requested_plans()) is not None:
        require_own_names(path, plans)


def find_requested_plans() -> Path | None:
    """Return the plans file that nnU-Net's entry point has read, or None outside of it.

    Only the entry point knows the path, so it is taken from the calling function.
    """
    module, function, variable = ENTRY_POINT
    frame = sys._getframe()
    while frame is not None:
        code, names = frame.f_code, frame.f_globals
        if code.co_name == function and names.get("__name__") == module:
            path = frame.f_locals.get(variable)
            return Path(path) if isinstance(path, str) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None
