"""The initial weights of a training's networks: random, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semi_nnunet.networks.frozen import (
    FrozenNetworks,
    load_pretrained_encoder,
    unwrap_compiled,
)
from semi_nnunet.networks.pretrained import find_output_layers, load_fitting_weights
from semi_nnunet.raw.folds import PatientOf, find_seen_patients
from semi_nnunet.raw.layout import FINAL_CHECKPOINT
from semi_nnunet.settings.common import POOL, PRETRAINER
from semi_nnunet.training.checkpoints import read_of_any_trainer
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import sha256_of_file
from semi_nnunet.util.names import list_first

IN_FOLD = "unlabelled_in_fold"  # key of a checkpoint: unlabelled cases, before any filtering
LEARNED_BEFORE = "learned_before"  # the same: cases of the trainings that it continues


class InitialWeights:
    """Loads the weights of a file into networks before the first step, and records the file.

    Args:
        path: checkpoint; None: networks keep their random weights, or those of the encoder that
            the plan names.
        build: builds a network of the plan for a number of classes.
        continues: the checkpoint is of an earlier training (setting ``continue_from``), which the
            student and its companions continue.
        dataset: name of the data set that is trained on.

    Attributes:
        record: path, checksum and number of loaded weights, for checkpoints; empty without a file.
            "steps" are those of a training that is continued.
        learned_from: cases of this data set that the earlier training has seen.
    """

    def __init__(
        self,
        path: Path | None,
        build: Callable[[int], nn.Module],
        say: Callable[[str], None],
        continues: bool = False,
        dataset: str = "",
    ):
        self.path, self.build, self.say, self.continues = path, build, say, continues
        self.dataset = dataset
        self.record: dict[str, str] = {}
        self.learned_from: set[str] = set()

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
        if not (self.record or self.continues):
            self.say(f"begins with the weights of {self.path}: {transfer}")
        self.record = {
            "path": str(self.path), "sha256": sha256_of_file(self.path), "weights": str(transfer)
        }  # fmt: skip
        identity = (content.get("semi") or {}).get("identity", {})
        if identity.get("dataset") == self.dataset and identity.get("trainer") != PRETRAINER:
            self.learned_from = list_learned_cases(content)

    def continue_student(self, network: nn.Module) -> None:
        """Load all weights of the student of an earlier training, its output layers included.

        Raises:
            UserError: the file is damaged, can execute code, or is of other plans.
        """
        if self.path is None:
            return
        content = read_of_any_trainer(self.path)
        semi = content.get("semi") or {}
        weights = semi.get("student", content["network_weights"])
        require_same_weights(unwrap_compiled(network), weights, self.path)
        unwrap_compiled(network).load_state_dict(weights)
        self.learned_from = list_learned_cases(content)
        self.record = {
            "path": str(self.path), "sha256": sha256_of_file(self.path),
            "weights": f"{len(weights)} tensors continued",
            "steps": str(count_trained_steps(content)),
        }  # fmt: skip
        self.say(f"continues from the weights of {self.path}")

    def continue_companions(self, companions: nn.Module) -> None:
        """Load the weights of those companions that the earlier training has, too.

        Frozen networks are teachers that were trained before; they stay as they were loaded.
        """
        if self.path is None or not self.continues:
            return
        stored = (read_of_any_trainer(self.path).get("semi") or {}).get("companions", {})
        state = companions.state_dict()
        frozen = {n for n, m in companions.named_children() if isinstance(m, FrozenNetworks)}
        for name in sorted({key.split(".")[0] for key in state} - frozen):
            of_it = {key: value for key, value in state.items() if key.split(".")[0] == name}
            fits = all(
                key in stored and stored[key].shape == value.shape for key, value in of_it.items()
            )
            if fits:
                companions.load_state_dict({key: stored[key] for key in of_it}, strict=False)
                self.say(f"continues from the {name} of {self.path}")

    @property
    def steps_before(self) -> int:
        """Optimizer steps of the training that this one continues; 0: it continues none."""
        return int(self.record.get("steps", 0))

    def require_unseen(
        self, split: tuple[Iterable[str], Iterable[str]], fold: object, group_of: PatientOf
    ) -> None:
        """Raise a UserError if the earlier training has learned from validation patients.

        Arguments as for :func:`require_unseen_patients`.
        """
        name = f"{'continue_from' if self.continues else 'pretrained'} {self.path}"
        fix = (
            "begin with a training that has not seen these cases, not even without labels; or "
            "train from the beginning, or fold 'all'"
        )
        require_unseen_patients(self.learned_from, split, fold, group_of, name, fix)


def require_unseen_patients(
    learned: Collection[str],
    split: tuple[Iterable[str], Iterable[str]],
    fold: object,
    group_of: PatientOf,
    name: str,
    fix: str,
) -> None:
    """Raise a UserError if weights have learned from patients of the validation cases.

    Args:
        learned: cases.
        split: training and validation cases of the fold.
        fold: its name.
        group_of: case -> patient, or group of near-twins.
        name: of the weights.
        fix: what to do about it.
    """
    training, validation = map(set, split)
    patients = find_seen_patients(learned, training, validation, group_of)
    if seen := sorted(case for case in validation if group_of(case) in patients):
        raise UserError(
            f"{name} learned from patients that fold {fold} validates on: {list_first(seen)}",
            fix=fix,
        )


def list_learned_cases(checkpoint: Mapping[str, Any]) -> set[str]:
    """Return the labelled and unlabelled cases that a training of this package has learned from.

    Those of the trainings that it continues count, too.
    """
    semi = checkpoint.get("semi") or {}
    cases = semi.get("cases", {})
    unlabelled = semi.get(IN_FOLD, cases.get("unlabelled", ()))
    return {*cases.get("labelled", ()), *unlabelled, *semi.get(LEARNED_BEFORE, ())}


def require_same_weights(
    network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Raise a UserError if weights have other names or shapes than a network."""
    state = network.state_dict()
    other = [
        name
        for name in {**state, **weights}
        if name not in state or name not in weights or state[name].shape != weights[name].shape
    ]
    if other:
        raise UserError(
            f"continue_from {path}: {len(other)} weights have other names or shapes than the "
            f"network of these plans, such as {other[0]}",
            fix="continue with the plans of that training, or set pretrained instead",
        )


def count_trained_steps(content: Mapping[str, Any]) -> int:
    """Return the optimizer steps of a checkpoint; 0 if it does not say how many an epoch has."""
    settings = (content.get("semi") or {}).get("settings", {})
    entry = settings.get("steps_per_epoch", 0)
    return int(content.get("current_epoch", 0)) * int(entry)


def find_continued_weights(
    continue_from: str, pretrained: str | None, fold: int | str, results: Path
) -> Path:
    """Return the checkpoint of the setting ``continue_from``.

    Args:
        continue_from: path of a checkpoint, of a fold or of a model, or the latter below
            nnUNet_results. Of a model, the same fold is continued.
        fold: of the new training.
        results: nnUNet_results.

    Raises:
        UserError: there is no such checkpoint, or ``pretrained`` is given, too.
    """
    if pretrained is not None:
        raise UserError(
            "continue_from and pretrained exclude each other, and both are given",
            fix="set one of them in plans['semi'] to none",
        )
    path = Path(continue_from).expanduser()
    roots = [path] if path.is_absolute() else [path, results / path]
    candidates = [
        candidate
        for root in roots
        for candidate in (root, root / FINAL_CHECKPOINT, root / f"fold_{fold}" / FINAL_CHECKPOINT)
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"continue_from must be a checkpoint, a fold, or a model with a trained fold {fold}, got "
        f"{continue_from!r}: there is no {', '.join(map(str, candidates))}",
        fix="correct plans['semi']",
    )


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
        fix="correct the path (semi_nnunet plan --set pretrained=FILE)",
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
