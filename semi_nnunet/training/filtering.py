"""Uncertainty-based image filtering (UIF): go on with the surest of the unlabelled images.

At stated epochs every unlabelled image gets an uncertainty
(:mod:`semi_nnunet.core.case_uncertainty`), the surest are kept, and training goes on with them. The
FLARE22 seed kept 200 of 2000 and gained on all 2000. Works with every trainer; the list is part of
the checkpoint, and a table ``filter_epoch_<N>.csv`` (case, score, kept) is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

from semi_nnunet.core.case_uncertainty import (
    checkpoint_disagreement,
    disagreement,
    foreground_entropy,
    voxel_change,
)
from semi_nnunet.core.pseudo_labels import foreground_labels
from semi_nnunet.settings.common import require_epochs
from semi_nnunet.training import checkpoints
from semi_nnunet.training.prediction import of_all_ranks, predict_pool
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


def check_filter(trainer: Any) -> None:
    """Check, before the first step, that the filtering that is asked for can be done.

    Raises:
        UserError: an epoch that never comes, or a score for which there is only one network.
    """
    settings = trainer.settings
    require_epochs(settings, "filter_epochs")
    if settings.filter_epochs and settings.filter_score == "disagreement":
        networks_to_compare(trainer)


def filter_cases(trainer: Any) -> list[str]:
    """Score the unlabelled cases as the settings say, write the table, and say which to keep."""
    settings, epoch, folder = trainer.settings, trainer.current_epoch, Path(trainer.output_folder)
    scores = all_scores(trainer)
    if not scores:
        trainer.print_to_log_file(
            f"filter, epoch {epoch}: no earlier round to compare with, every image is kept"
        )
        return trainer.unlabelled_cases()
    kept = surest(scores, settings.filter_keep)
    trainer.print_to_log_file(
        f"filter, epoch {epoch}: kept {len(kept)} of {len(scores)} unlabelled images, mean "
        f"{settings.filter_score} {np.mean([scores[case] for case in kept]):.3f} "
        f"(of all: {np.mean(list(scores.values())):.3f})"
    )
    if trainer.local_rank == 0:
        write_table(folder / f"filter_epoch_{epoch}.csv", scores, kept)
    return kept


def write_table(path: Path, scores: Mapping[str, float], kept: list[str]) -> None:
    """case, score (its uncertainty), kept (0 or 1); the surest first."""
    chosen = set(kept)
    rows = [[case, f"{scores[case]:.6f}", int(case in chosen)] for case in ranked(scores)]
    write_csv(path, [["case", "score", "kept"], *rows])


def all_scores(trainer: Any) -> dict[str, float]:
    """Case -> uncertainty; empty where the score needs an earlier round and there is none."""
    epochs, epoch = sorted(trainer.settings.filter_epochs), trainer.current_epoch
    rounds = Path(trainer.output_folder) / "filter_rounds"
    earlier = [rounds / str(e) for e in epochs if e < epoch]
    networks = networks_to_compare(trainer)
    scores, cases = {}, trainer.unlabelled_cases()
    pool = predict_pool(
        trainer, networks, trainer.pool.folder, cases, "filtering unlabelled images", mirror=False
    )
    for case, logits, _ in pool:
        probs = {name: trainer.probs(value[None])[0] for name, value in logits.items()}
        score = trainer.settings.filter_score
        if score == "entropy":
            scores[case] = foreground_entropy(probs["deployed"], trainer.exclusive)
            continue
        labels = [foreground_labels(p, trainer.exclusive) for p in probs.values()]
        if score == "change":
            before = [read_labels(folder / f"{case}.npz", case) for folder in earlier]
            if before:
                scores[case] = voxel_change([*before, *labels])
            write_labels(rounds / str(epoch) / f"{case}.npz", labels[-1])
        elif score == "checkpoints":
            scores[case] = checkpoint_disagreement(labels)
        else:
            scores[case] = disagreement(*labels)
    return of_all_ranks(trainer, scores)


def networks_to_compare(trainer: Any) -> dict[str, nn.Module]:
    """Those whose predictions the score is made of; the deployed one last."""
    score, deployed = trainer.settings.filter_score, trainer.prediction_network()
    if score in ("entropy", "change"):
        return {"deployed": deployed}
    if score == "checkpoints":
        return {**snapshots(trainer), "deployed": deployed}
    networks = [*trainer.deployed_networks(), *trainer.validated_networks().values()]
    others = [network for network in networks if network is not networks[0]]
    if not others:
        raise UserError(
            f"filter_score 'disagreement' compares two networks, {type(trainer).__name__} has one. "
            f"Fix: choose 'entropy', 'checkpoints' or 'change' in plans['semi']"
        )
    return {"other": others[0], "deployed": networks[0]}


# ---- checkpoints at 1/3 and 2/3 of the way (ST++)


def snapshot_epochs(filter_epochs: tuple[int, ...]) -> set[int]:
    """The epochs at whose start the deployed network is set aside, for every filtering."""
    return {epoch * part // 3 for epoch in filter_epochs for part in (1, 2)}


def take_snapshot(trainer: Any) -> None:
    """Set the deployed network aside."""
    if trainer.local_rank == 0:
        weights = {"network_weights": trainer.deployed_networks()[0].state_dict()}
        checkpoints.save(weights, snapshot_file(trainer, trainer.current_epoch))
    if trainer.is_ddp:
        dist.barrier()


def snapshot_file(trainer: Any, epoch: int) -> Path:
    return Path(trainer.output_folder) / f"filter_snapshot_{epoch}.pth"


def snapshots(trainer: Any) -> dict[str, nn.Module]:
    """The networks set aside for the filtering of this epoch."""
    networks = {}
    for epoch in sorted(snapshot_epochs((trainer.current_epoch,))):
        path = snapshot_file(trainer, epoch)
        if not path.is_file():
            raise UserError(
                f"filter_score 'checkpoints' compares with the network of epoch {epoch}, {path} is "
                f"missing. Fix: train from the start, or choose another filter_score"
            )
        network = trainer.another_network("snapshot")
        network.load_state_dict(checkpoints.read(path)["network_weights"])
        networks[f"epoch {epoch}"] = network.to(trainer.device)
    return networks


# ---- labels of a round, for the next one


def write_labels(path: Path, labels: torch.Tensor) -> None:
    """Store bool (F, *spatial)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, packed=np.packbits(labels.numpy()), shape=np.array(labels.shape))


def read_labels(path: Path, case: str) -> torch.Tensor:
    """What :func:`write_labels` stored."""
    if not path.is_file():
        raise UserError(
            f"filter_score 'change' compares with the round before, {path} of {case} is missing. "
            f"Fix: train from the start, or choose another filter_score"
        )
    with np.load(path) as stored:
        shape = tuple(stored["shape"])
        bits = np.unpackbits(stored["packed"], count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape).astype(bool))
