"""The weights that the networks of a training begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from semi_nnunet.networks.frozen import load_pretrained_encoder, unwrapped
from semi_nnunet.networks.pretrained import output_layers, take_weights
from semi_nnunet.settings.common import POOL, PRETRAINER
from semi_nnunet.training.checkpoints import NEWEST_FIRST, read_of_any_trainer
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import sha256_of_file

FINAL = NEWEST_FIRST[0]


class InitialWeights:
    """Gives networks the weights of a file before their first step, and remembers which file.

    Args:
        path: of a checkpoint; None: networks keep the random weights that they were made with, or
            those of the encoder that a plan names.
        build: number of classes -> a network of the plan.
        say: prints and logs.

    Attributes:
        record: path, checksum and what was taken; empty without a file. It is kept in checkpoints.
    """

    def __init__(
        self, path: Path | None, build: Callable[[int], nn.Module], say: Callable[[str], None]
    ):
        self.path, self.build, self.say = path, build, say
        self.record: dict[str, str] = {}

    def give(self, network: nn.Module) -> None:
        """Change the weights of a network that was just made.

        Raises:
            UserError: the file is damaged, executes code, or is of another architecture.
        """
        load_pretrained_encoder(network)
        if self.path is None:
            return
        content = read_of_any_trainer(self.path)
        try:
            transfer = take_weights(unwrapped(network), content, output_layers(self.build))
        except UserError as error:
            raise UserError(f"pretrained {self.path}: {error}") from error
        if not self.record:
            self.say(f"begins with the weights of {self.path}: {transfer}")
        self.record = {
            "path": str(self.path), "sha256": sha256_of_file(self.path), "weights": str(transfer)
        }  # fmt: skip


def weights_file(
    pretrained: str | None, model_folder: Path, trainer: str, command: str
) -> Path | None:
    """The checkpoint that the setting ``pretrained`` names; the others as of
    :func:`checkpoint_of_pool`. To pre-training itself, "pool" means nothing.

    Raises:
        UserError: there is none.
    """
    if pretrained is None or (pretrained == POOL and trainer == PRETRAINER):
        return None
    if pretrained != POOL:
        return checkpoint_of(pretrained)
    return checkpoint_of_pool(model_folder, trainer, command)


def checkpoint_of(text: str) -> Path:
    """The checkpoint that a user names: a file, a fold, or TRAINER__PLANS__CONFIGURATION.

    Of the last, fold "all", as pre-training has one.

    Raises:
        UserError: there is none.
    """
    given = Path(text).expanduser()
    places = [given, given / FINAL, given / "fold_all" / FINAL]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"pretrained must be 'pool', a checkpoint, or a folder of a training that is done, got "
            f"{text!r}: there is no {', '.join(map(str, places))}",
            fix="correct plans['semi']",
        )
    return found


def checkpoint_of_pool(model_folder: Path, trainer: str, command: str) -> Path:
    """What pre-training with the same plans and configuration left.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION of the training that begins.
        trainer: its TRAINER.
        command: that pre-trains.

    Raises:
        UserError: there was none.
    """
    name = model_folder.name.replace(trainer, PRETRAINER, 1)
    path = model_folder.with_name(name) / "fold_all" / FINAL
    if not path.is_file():
        raise UserError(
            f"pretrained is 'pool', and nothing was pre-trained: there is no {path}",
            fix=f"{command}",
        )
    return path
