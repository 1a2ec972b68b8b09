"""``semi_nnunet install``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.deploy.install import InstalledModels

logger = logging.getLogger(__name__)


def install(archive: Path, /) -> InstalledModels:
    """Install a model from a zip, without running or overwriting anything.

        semi_nnunet install Dataset042_....zip

    The zip is checked before it is unpacked, its checkpoints may hold only tensors and plain
    values, and a different model of the same name is kept.
    nnUNetv2_install_pretrained_model_from_zip checks none of this.

    Args:
        archive: Zip written by semi_nnunet export or nnUNetv2_export_model_to_zip.

    Returns:
        The installed models, and the files that were left out.

    Raises:
        UserError: the zip is damaged, holds files that no model has, or a different model exists.

    Example:
        >>> [zip_file] = Path("exported").glob("*.zip")
        >>> [folder.name for folder in install(zip_file).models]
        ['nnUNetTrainer__short_SemiMeanTeacherTrainer__2d']
    """
    from semi_nnunet.deploy.install import install_models

    installed = install_models(archive)
    for name in installed.left_out:
        logger.info(f"left out: {name}")
    for folder in installed.models:
        logger.info(f"installed {folder}")
    return installed
