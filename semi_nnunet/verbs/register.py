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
    """Let nnU-Net's own commands find our trainers; needed only where pip could not.

    pip installs a file semi_nnunet.pth next to this package, and removes it with the package. It
    adds our trainers to nnUNet_extTrainer whenever Python starts, and keeps the folders that you
    named there. Python does not read this file if the package lies elsewhere: installed by pip
    --target, or named in PYTHONPATH. Then this command writes it. It also removes the file that
    earlier versions wrote into nnU-Net's package. For one shell only:

        export nnUNet_extTrainer="$(semi_nnunet register --print)"

    Args:
        undo: Remove these files.
        print_folder: Write nothing; print the folder for nnUNet_extTrainer.

    Raises:
        UserError: a folder is not writable.
    """
    from semi_nnunet.discovery import register as discovery

    if print_folder:
        logger.info(str(discovery.TRAINERS_FOLDER))
    elif not undo:
        earlier = discovery.find_file_in_nnunet()
        for file in discovery.write_startup_file():
            logger.info(f"nnUNetv2_train finds SemiUnifiedTrainer and the others through {file}")
        if earlier is not None:
            logger.info(f"removed {earlier}, which an earlier version wrote")
    elif removed := list(discovery.unregister()):
        logger.info("\n".join(f"removed {file}" for file in removed))
        logger.info("semi_nnunet register writes it again")
    else:
        logger.info("there is nothing to remove")
