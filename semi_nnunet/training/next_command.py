"""The commands that a training's error messages tell the user to type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.util.errors import UserError


@dataclass(frozen=True)
class NextCommand:
    """What to type before or beside a training.

    Args:
        dataset: name of the data set.
        plans: identifier of the plans.
        configuration: that is trained.
        trainer: class name.
        previous_stage: configuration of a cascade's stage before it, None if there is none.
    """

    dataset: str
    plans: str
    configuration: str
    trainer: str
    previous_stage: str | None

    @property
    def preprocess(self) -> str:
        """What makes the preprocessed cases."""
        where = f"-c {self.configuration} -p {self.plans}"
        return f"semi_nnunet preprocess -d {self.dataset} {where}"

    @property
    def train_previous_stage(self) -> str:
        """What makes the predictions of the previous stage of a cascade."""
        where = f"{self.dataset} {self.previous_stage} FOLD -tr {self.trainer}"
        return f"train every fold of it: nnUNetv2_train {where}"

    @property
    def pretrain(self) -> str:
        """What trains the weights that ``pretrained=pool`` begins with."""
        where = f"{self.dataset} {self.configuration} all -tr SemiPretrainTrainer"
        return f"nnUNetv2_train {where} -p {self.plans}"

    def require_preprocessed(self, folder: str | Path) -> None:
        """Check that the preprocessed cases are there.

        Args:
            folder: of them.

        Raises:
            UserError: they are not.
        """
        if not Path(folder).is_dir():
            raise UserError(
                f"{self.configuration} is not preprocessed, there is no {folder}. ",
                fix=f"{self.preprocess}",
            )
