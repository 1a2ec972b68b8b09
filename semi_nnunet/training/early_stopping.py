"""End a training whose validation Dice does not rise any more."""

from __future__ import annotations

from semi_nnunet.settings.common import SemiSettings


class EarlyStop(Exception):
    """The validation Dice has not risen for the stated number of epochs."""


def stop_early(epoch: int, best_epoch: int, best_dice: float, settings: SemiSettings) -> None:
    """End the training if it is time to.

    Args:
        epoch: that is done.
        best_epoch: whose moving-average Dice is the highest.
        best_dice: that Dice.
        settings: ``early_stopping_patience_epochs``; 0: the training never ends early.

    Raises:
        EarlyStop: the Dice has not risen for so long.
    """
    patience = settings.early_stopping_patience_epochs
    if patience and epoch - best_epoch >= patience:
        raise EarlyStop(
            f"Early stop: the moving-average Dice has not risen above {best_dice:.4f} "
            f"(epoch {best_epoch}) for {patience} epochs"
        )
