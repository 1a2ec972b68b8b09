"""Uncertainty-based image filtering (UIF): go on with the surest of the unlabelled images.

At stated epochs every unlabelled image gets an uncertainty
(:mod:`semi_nnunet.core.case_uncertainty`), the surest are kept, and training goes on with them. The
FLARE22 seed kept 200 of 2000 and gained on all 2000. Works with every trainer; the list is part of
the checkpoint, and a table ``filter_epoch_<N>.csv`` (case, score, kept) is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.case_uncertainty import (
    checkpoint_disagreement,
    disagreement,
    foreground_entropy,
    voxel_change,
)
from semi_nnunet.core.pseudo_labels import foreground_labels
from semi_nnunet.settings.common import SemiSettings, require_epochs
from semi_nnunet.training import checkpoints
from semi_nnunet.training.networks_in_training import NetworksInTraining
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.training.run_log import Say
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_csv, write_npz


def ranked(scores: Mapping[str, float]) -> list[str]:
    """The cases, the surest first."""
    return sorted(scores, key=lambda case: (scores[case], case))


def surest(scores: Mapping[str, float], keep: float) -> list[str]:
    """The cases of least uncertainty, in alphabetical order.

    Args:
        scores: case -> uncertainty.
        keep: a fraction of the cases (at most 1), or a number of them (above 1); at least one is.
    """
    count = max(1, round(keep * len(scores)) if keep <= 1 else int(keep))
    return sorted(ranked(scores)[:count])


def write_table(path: Path, scores: Mapping[str, float], kept: list[str]) -> None:
    """case, score (its uncertainty), kept (0 or 1); the surest first."""
    chosen = set(kept)
    rows = [[case, f"{scores[case]:.6f}", int(case in chosen)] for case in ranked(scores)]
    write_csv(path, [["case", "score", "kept"], *rows])


@dataclass(frozen=True)
class ImageFilter:
    """Scores the unlabelled images of a training and says which to keep.

    Args:
        settings: ``filter_epochs``, ``filter_score``, ``filter_keep``.
        folder: of the fold's results.
        networks: of the training.
        say: prints a line into the training's log.
    """

    settings: SemiSettings
    folder: Path
    networks: NetworksInTraining
    say: Say

    def check(self) -> None:
        """Check, before the first step, that the filtering that is asked for can be done.

        Raises:
            UserError: an epoch that never comes, or a score for which there is only one network.
        """
        require_epochs(self.settings, "filter_epochs")
        if self.settings.filter_epochs and self.settings.filter_score == "disagreement":
            self.compared(epoch=0)

    def keep(
        self, epoch: int, images: Path, cases: Sequence[str], predictor: CasePredictor
    ) -> list[str]:
        """The cases to go on with; writes the table of all.

        Args:
            epoch: that begins.
            images: folder of the preprocessed unlabelled cases.
            cases: of the folder.
            predictor: of the training.
        """
        scores = self.scores(epoch, images, cases, predictor)
        if not scores:
            self.say(
                f"filter, epoch {epoch}: no earlier round to compare with, every image is kept"
            )
            return list(cases)
        kept = surest(scores, self.settings.filter_keep)
        self.say(
            f"filter, epoch {epoch}: kept {len(kept)} of {len(scores)} unlabelled images, mean "
            f"{self.settings.filter_score} {np.mean([scores[case] for case in kept]):.3f} "
            f"(of all: {np.mean(list(scores.values())):.3f})"
        )
        if predictor.ranks.number == 0:
            write_table(self.folder / f"filter_epoch_{epoch}.csv", scores, kept)
        return kept

    def scores(
        self, epoch: int, images: Path, cases: Sequence[str], predictor: CasePredictor
    ) -> dict[str, float]:
        """Case -> uncertainty; empty where the score needs an earlier round and there is none."""
        exclusive, score = self.networks.exclusive, self.settings.filter_score
        rounds = self.folder / "filter_rounds"
        earlier = [rounds / str(one) for one in sorted(self.settings.filter_epochs) if one < epoch]
        found: dict[str, float] = {}
        pool = predictor.predict(
            self.compared(epoch), images, cases, "filtering unlabelled images", mirror=False
        )
        for case, logits, _ in pool:
            probs = {name: self.networks.probs(value[None])[0] for name, value in logits.items()}
            if score == "entropy":
                found[case] = foreground_entropy(probs["deployed"], exclusive)
                continue
            labels = [foreground_labels(p, exclusive) for p in probs.values()]
            if score == "change":
                before = [read_labels(folder / f"{case}.npz", case) for folder in earlier]
                if before:
                    found[case] = voxel_change([*before, *labels])
                write_labels(rounds / str(epoch) / f"{case}.npz", labels[-1])
            elif score == "checkpoints":
                found[case] = checkpoint_disagreement(labels)
            else:
                found[case] = disagreement(*labels)
        return predictor.ranks.together(found)

    def compared(self, epoch: int) -> dict[str, nn.Module]:
        """The networks whose predictions the score is made of; the deployed one last.

        Raises:
            UserError: the score needs two networks and there is one, or a snapshot is gone.
        """
        score, deployed = self.settings.filter_score, self.networks.prediction_network()
        if score in ("entropy", "change"):
            return {"deployed": deployed}
        if score == "checkpoints":
            return {**self.snapshots(epoch), "deployed": deployed}
        networks = self.networks.deployed_networks()
        networks = [*networks, *self.networks.validated_networks().values()]
        others = [network for network in networks if network is not networks[0]]
        if not others:
            raise UserError(
                f"filter_score 'disagreement' compares two networks, "
                f"{type(self.networks).__name__} has one",
                fix="choose 'entropy', 'checkpoints' or 'change' in plans['semi']",
            )
        return {"other": others[0], "deployed": networks[0]}

    # ---- checkpoints at 1/3 and 2/3 of the way (ST++)

    def takes_snapshot(self, epoch: int) -> bool:
        """Whether the deployed network is to be set aside at the start of an epoch."""
        by_checkpoints = self.settings.filter_score == "checkpoints"
        return by_checkpoints and epoch in snapshot_epochs(self.settings.filter_epochs)

    def take_snapshot(self, epoch: int, predictor: CasePredictor) -> None:
        """Set the deployed network aside."""
        if predictor.ranks.number == 0:
            weights = {"network_weights": self.networks.deployed_networks()[0].state_dict()}
            checkpoints.save(weights, self._snapshot_file(epoch))
        predictor.ranks.barrier()

    def _snapshot_file(self, epoch: int) -> Path:
        return self.folder / f"filter_snapshot_{epoch}.pth"

    def snapshots(self, epoch: int) -> dict[str, nn.Module]:
        """The networks set aside for the filtering of an epoch.

        Raises:
            UserError: one is gone.
        """
        networks: dict[str, nn.Module] = {}
        for earlier in sorted(snapshot_epochs((epoch,))):
            path = self._snapshot_file(earlier)
            if not path.is_file():
                raise UserError(
                    f"filter_score 'checkpoints' compares with the network of epoch {earlier}, "
                    f"{path} is missing",
                    fix="train from the start, or choose another filter_score",
                )
            network = self.networks.another_network("snapshot")
            network.load_state_dict(checkpoints.read(path)["network_weights"])
            device = next(self.networks.deployed_networks()[0].parameters()).device
            networks[f"epoch {earlier}"] = network.to(device)
        return networks


def snapshot_epochs(filter_epochs: tuple[int, ...]) -> set[int]:
    """The epochs at whose start the deployed network is set aside, for every filtering."""
    return {epoch * part // 3 for epoch in filter_epochs for part in (1, 2)}


# ---- labels of a round, for the next one


def write_labels(path: Path, labels: torch.Tensor) -> None:
    """Store bool (F, *spatial)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, packed=np.packbits(labels.numpy()), shape=np.array(labels.shape))


def read_labels(path: Path, case: str) -> torch.Tensor:
    """What :func:`write_labels` stored."""
    if not path.is_file():
        raise UserError(
            f"filter_score 'change' compares with the round before, {path} of {case} is missing. ",
            fix="train from the start, or choose another filter_score",
        )
    with np.load(path) as stored:
        shape = tuple(stored["shape"])
        bits = np.unpackbits(stored["packed"], count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape).astype(bool))
