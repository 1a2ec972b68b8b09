"""``semi_nnunet register``."""

from __future__ import annotations

import logging
from typing import Annotated

from semi_nnunet.verbs.options import FIRST, one_of, option

logger = logging.getLogger(__name__)
ACTION = one_of()


def register(
    *,
    undo: Annotated[bool, option(group=(FIRST, ACTION))] = False,
    print_folder: Annotated[bool, option("--print", group=(FIRST, ACTION))] = False,
) -> None:
    """Let nnU-Net's own commands find our trainers in every shell, without any variable.

    Writes one small file next to nnU-Net's own trainer variants; --undo removes it. If that folder
    is not writable, set a variable instead:

        export nnUNet_extTrainer="$(semi_nnunet register --print)"

    Args:
        undo: Remove the file again.
        print_folder: Write nothing; print the folder for nnUNet_extTrainer.

    Raises:
        UserError: the folder is not writable.
    """
    from semi_nnunet.discovery import register as shim

    if print_folder:
        logger.info(str(shim.TRAINERS_FOLDER))
    elif not undo:
        logger.info(f"wrote {shim.register()}")
        logger.info("nnUNetv2_train now finds SemiUnifiedTrainer and the others; --undo reverts it")
    elif shim.unregister():
        logger.info(f"removed {shim.shim_file()}")
    else:
        logger.info(f"nothing to remove: {shim.shim_file()} does not exist")
