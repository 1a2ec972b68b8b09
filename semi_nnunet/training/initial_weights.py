"""The initial weights of a training's networks: random, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from semi_nnunet.networks.frozen import load_pretrained_encoder, unwrap_compiled
from semi_nnunet.networks.pretrained import find_output_layers, load_fitting_weights
from semi_nnunet.raw.layout import FINAL_CHECKPOINT
from semi_nnunet.settings.common import POOL, PRETRAINER
from semi_nnunet.training.checkpoints import read_of_any_trainer
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import sha256_of_file


class InitialWeights:
    """Loads the weights of a file into networks before the first step, and records the file.

    Args:
        path: checkpoint; None: networks keep their random weights, or those of the encoder that
            the plan names.
        build: builds a network of the plan for a number of classes.

    Attributes:
        record: path, checksum and number of loaded weights, for checkpoints; empty without a file.
    """

    def __init__(
        self, path: Path | None, build: Callable[[int], nn.Module], say: Callable[[str], None]
    ):
        self.path, self.build, self.say = path, build, say
        self.record: dict[str, str] = {}

    def load_into(self, network: nn.Module) -> None:
        """Replace the weights of a new network.

        Raises:
            UserError: the file is damaged, can execute code, or is of another architecture.
        """
        load_pretrained_encoder(network)
        if self.path is None:
            return
        content = read_of_any_trainer(self.path)
        try:
            transfer = load_fitting_weights(
                unwrap_compiled(network), content, find_output_layers(self.build)
            )
        except UserError as error:
            raise UserError(
                f"pretrained {self.path}: {error.what}", error.problems, fix=error.fix
            ) from error
        if not self.record:
            self.say(f"begins with the weights of {self.path}: {transfer}")
        self.record = {
            "path": str(self.path), "sha256": sha256_of_file(self.path), "weights": str(transfer)
        }  # fmt: skip


def find_initial_weights(
    pretrained: str | None, model_folder: Path, trainer: str, command: str
) -> Path | None:
    """Return the checkpoint of the setting ``pretrained``, or None for random weights.

    Args:
        pretrained: None, "pool" (which pre-training itself ignores), or a path.
        model_folder: TRAINER__PLANS__CONFIGURATION of the training.

    Raises:
        UserError: there is no such checkpoint.
    """
    if pretrained is None or (pretrained == POOL and trainer == PRETRAINER):
        return None
    if pretrained != POOL:
        return find_named_checkpoint(pretrained)
    return find_pretrained_checkpoint(model_folder, trainer, command)


def find_named_checkpoint(text: str) -> Path:
    """Return the checkpoint at a path: a file, a fold, or TRAINER__PLANS__CONFIGURATION (fold all).

    Raises:
        UserError: there is no such checkpoint.
    """
    path = Path(text).expanduser()
    candidates = [path, path / FINAL_CHECKPOINT, path / "fold_all" / FINAL_CHECKPOINT]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"pretrained must be 'pool', a checkpoint, or a folder of a finished training, got "
        f"{text!r}: there is no {', '.join(map(str, candidates))}",
        fix="correct plans['semi']",
    )


def find_pretrained_checkpoint(model_folder: Path, trainer: str, command: str) -> Path:
    """Return the checkpoint of pre-training with the same plans and configuration.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION of the training.

    Raises:
        UserError: there is no such checkpoint.
    """
    name = model_folder.name.replace(trainer, PRETRAINER, 1)
    path = model_folder.with_name(name) / "fold_all" / FINAL_CHECKPOINT
    if not path.is_file():
        raise UserError(
            f"pretrained is 'pool', and nothing was pre-trained: there is no {path}", fix=command
        )
    return path
