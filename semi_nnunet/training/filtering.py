"""Uncertainty-based image filtering (UIF): continue with the least uncertain unlabelled images.

At the epochs of ``filter_epochs`` every unlabelled image gets an uncertainty
(:mod:`semi_nnunet.core.case_uncertainty`), and training continues with the least uncertain ones.
With FLARE22, a training that kept 200 of 2000 images was better than one with all 2000. Works with
every trainer. The list is part of the checkpoint; ``filter_epoch_<N>.csv`` has all scores.
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
    foreground_entropy,
    network_disagreement,
    voxel_change,
)
from semi_nnunet.core.pseudo_labels import foreground_labels
from semi_nnunet.settings.common import SemiSettings, require_epochs
from semi_nnunet.training import checkpoints
from semi_nnunet.training.prediction import CasePredictor, TrainingNetworks
from semi_nnunet.training.run_log import Say
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_csv, write_npz


def rank_by_uncertainty(scores: Mapping[str, float]) -> list[str]:
    """Return the cases, least uncertain first.

    >>> rank_by_uncertainty({"case_1": 0.8, "case_2": 0.1})
    ['case_2', 'case_1']
    """
    return sorted(scores, key=lambda case: (scores[case], case))


def select_least_uncertain(scores: Mapping[str, float], keep: float) -> list[str]:
    """Return the least uncertain cases in alphabetical order.

    Args:
        scores: case -> uncertainty.
        keep: a fraction of the cases (up to 1) or their number (above 1); at least one is kept.
    """
    return sorted(rank_by_uncertainty(scores)[: count_kept(len(scores), keep)])


def count_kept(cases: int, keep: float) -> int:
    """Return how many of ``cases`` cases are kept at most, see :func:`select_least_uncertain`.

    >>> count_kept(4, 0.9), count_kept(4, 3)
    (4, 3)
    """
    return max(1, round(keep * cases) if keep <= 1 else int(keep))


def write_filter_table(path: Path, scores: Mapping[str, float], kept_cases: Sequence[str]) -> None:
    """Write a CSV with case, score (its uncertainty) and kept (0 or 1), least uncertain first."""
    kept_set = set(kept_cases)
    rows = [[c, f"{scores[c]:.6f}", int(c in kept_set)] for c in rank_by_uncertainty(scores)]
    write_csv(path, [["case", "score", "kept"], *rows])


@dataclass(frozen=True)
class ImageFilter:
    """Scores the unlabelled images of a training and selects those to keep.

    Args:
        settings: ``filter_epochs``, ``filter_score``, ``filter_keep``.
    """

    settings: SemiSettings
    folder: Path
    networks: TrainingNetworks
    say: Say

    def check(self) -> None:
        """Raise before the first step if the filtering of the settings is impossible."""
        require_epochs(self.settings, "filter_epochs")
        if self.settings.filter_epochs and self.settings.filter_score == "disagreement":
            self.compared(epoch=0)

    def filter_cases(
        self, epoch: int, images: Path, cases: Sequence[str], predictor: CasePredictor
    ) -> list[str]:
        """Return the cases to keep, and write the table of all cases."""
        scores = self.score_cases(epoch, images, cases, predictor)
        if not scores:
            self.say(
                f"filter, epoch {epoch}: no earlier round to compare with, every image is kept"
            )
            return list(cases)
        kept_cases = select_least_uncertain(scores, self.settings.filter_keep)
        self.say(
            f"filter, epoch {epoch}: kept {len(kept_cases)} of {len(scores)} unlabelled images, "
            f"mean {self.settings.filter_score} "
            f"{np.mean([scores[case] for case in kept_cases]):.3f} "
            f"(of all: {np.mean(list(scores.values())):.3f})"
        )
        if predictor.ranks.rank == 0:
            write_filter_table(self.folder / f"filter_epoch_{epoch}.csv", scores, kept_cases)
        return kept_cases

    def score_cases(
        self, epoch: int, images: Path, cases: Sequence[str], predictor: CasePredictor
    ) -> dict[str, float]:
        """Return case -> uncertainty; empty if a needed earlier round is missing."""
        exclusive, score = self.networks.exclusive, self.settings.filter_score
        rounds = self.folder / "filter_rounds"
        earlier = [rounds / str(e) for e in sorted(self.settings.filter_epochs) if e < epoch]
        scores: dict[str, float] = {}
        predictions = predictor.predict(
            self.compared(epoch), images, cases, "filtering unlabelled images", mirror=False
        )
        for case, logits, _ in predictions:
            probs = {name: self.networks.probs(value[None])[0] for name, value in logits.items()}
            if score == "entropy":
                scores[case] = foreground_entropy(probs["deployed"], exclusive)
                continue
            labels = [foreground_labels(p, exclusive) for p in probs.values()]
            if score == "change":
                stored = [read_round_labels(folder / f"{case}.npz", case) for folder in earlier]
                if stored:
                    scores[case] = voxel_change([*stored, *labels])
                write_round_labels(rounds / str(epoch) / f"{case}.npz", labels[-1])
            elif score == "checkpoints":
                scores[case] = checkpoint_disagreement(labels)
            else:
                scores[case] = network_disagreement(*labels)
        return predictor.ranks.merge(scores)

    def compared(self, epoch: int) -> dict[str, nn.Module]:
        """Return the networks whose predictions the score compares, the deployed one last.

        Raises:
            UserError: a second network is needed and missing, or a snapshot is missing.
        """
        score, deployed = self.settings.filter_score, self.networks.prediction_network()
        if score in ("entropy", "change"):
            return {"deployed": deployed}
        if score == "checkpoints":
            return {**self.load_snapshots(epoch), "deployed": deployed}
        networks = self.networks.deployed_networks()
        networks = [*networks, *self.networks.validated_networks().values()]
        for network in networks:
            if network is not networks[0]:
                return {"other": network, "deployed": networks[0]}
        raise UserError(
            f"filter_score 'disagreement' compares two networks, {type(self.networks).__name__} "
            f"has one",
            fix="choose 'entropy', 'checkpoints' or 'change' in plans['semi']",
        )

    # ---- checkpoints at 1/3 and 2/3 of the way (ST++)

    def needs_snapshot(self, epoch: int) -> bool:
        """Return whether a later filtering needs the deployed network of the start of ``epoch``."""
        by_checkpoints = self.settings.filter_score == "checkpoints"
        return by_checkpoints and epoch in list_snapshot_epochs(self.settings.filter_epochs)

    def save_snapshot(self, epoch: int, predictor: CasePredictor) -> None:
        """Save the weights of the deployed network."""
        if predictor.ranks.rank == 0:
            weights = {"network_weights": self.networks.deployed_networks()[0].state_dict()}
            checkpoints.save(weights, self._snapshot_file(epoch))
        predictor.ranks.barrier()

    def _snapshot_file(self, epoch: int) -> Path:
        return self.folder / f"filter_snapshot_{epoch}.pth"

    def load_snapshots(self, epoch: int) -> dict[str, nn.Module]:
        """Load the networks that were saved for the filtering of an epoch.

        Raises:
            UserError: a file is missing.
        """
        networks: dict[str, nn.Module] = {}
        for earlier in sorted(list_snapshot_epochs((epoch,))):
            path = self._snapshot_file(earlier)
            if not path.is_file():
                raise UserError(
                    f"filter_score 'checkpoints' compares with the network of epoch {earlier}, "
                    f"{path} is missing",
                    fix="train from the start, or choose another filter_score",
                )
            network = self.networks.another_network("snapshot")
            network.load_state_dict(checkpoints.read_checkpoint(path)["network_weights"])
            device = next(self.networks.deployed_networks()[0].parameters()).device
            networks[f"epoch {earlier}"] = network.to(device)
        return networks


def list_snapshot_epochs(filter_epochs: tuple[int, ...]) -> set[int]:
    """Return the epochs at whose start a network is saved for a later filtering.

    >>> sorted(list_snapshot_epochs((30, 90)))
    [10, 20, 30, 60]
    """
    return {epoch * third // 3 for epoch in filter_epochs for third in (1, 2)}


# ---- labels of a round, for the next round


def write_round_labels(path: Path, labels: torch.Tensor) -> None:
    """Write bool labels (classes, *spatial), one bit each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, packed=np.packbits(labels.numpy()), shape=np.array(labels.shape))


def read_round_labels(path: Path, case: str) -> torch.Tensor:
    """Read the file of :func:`write_round_labels`.

    Raises:
        UserError: the file is missing.
    """
    if not path.is_file():
        raise UserError(
            f"filter_score 'change' compares with the round before, {path} of {case} is missing",
            fix="train from the start, or choose another filter_score",
        )
    with np.load(path) as stored:
        shape = tuple(stored["shape"])
        bits = np.unpackbits(stored["packed"], count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape).astype(bool))
