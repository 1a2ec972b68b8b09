"""The table of our trainers, in the one file that nnU-Net searches for them.

``nnUNet_extTrainer`` names its folder (:mod:`semi_nnunet.discovery.register`). The methods are
imported when nnU-Net asks for a class, because that takes seconds; commands that only plan, check
or list read the table.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHODS = Path(__file__).parents[2] / "methods"


@dataclass(frozen=True)
class TrainerFacts:
    """Facts about a trainer, equal to the attributes of its class.

    Args:
        file: that defines the class.
        settings: name of its settings class in :mod:`semi_nnunet.settings.methods`; ``None``: the
            class is imported to find its settings.
        uses_unlabelled: it needs unlabelled cases.
        segments: its network predicts classes, so that it can be validated.
        taught_by: the trainer whose trained network it needs by default.
    """

    file: Path
    settings: str | None = None
    uses_unlabelled: bool = True
    segments: bool = True
    taught_by: str | None = None


def describe(module: str, settings: str | None = None, **facts: Any) -> TrainerFacts:
    """Return the facts of a trainer in a module of :mod:`semi_nnunet.methods`."""
    return TrainerFacts(METHODS / f"{module}.py", settings, **facts)


TRAINERS = {
    "SemiBCPTrainer": describe("copy_paste", "BCPSettings"),
    "SemiCPSTrainer": describe("cross_pseudo_supervision", "CPSSettings"),
    "SemiDiffusionTrainer": describe("diffusion", "DiffusionSettings"),
    "SemiDistillationTrainer": describe(
        "distillation", "DistillationSettings", taught_by="SemiMeanTeacherTrainer"
    ),
    "SemiFixMatchTrainer": describe("fixmatch", "FixMatchSettings"),
    "SemiMeanTeacherTrainer": describe("mean_teacher", "MeanTeacherSettings"),
    "SemiMixMatchTrainer": describe("mixmatch", "MixMatchSettings"),
    "SemiPretrainTrainer": describe("pretraining", "PretrainSettings", segments=False),
    "SemiBaselineTrainer": describe("supervised", "SemiSettings", uses_unlabelled=False),
    "SemiUncertaintyAwareTrainer": describe("uncertainty_aware", "UncertaintyAwareSettings"),
    "SemiUnifiedTrainer": describe("unified", "UnifiedSettings"),
    "SemiUniMatchTrainer": describe("unimatch", "UniMatchSettings"),
}
__all__ = [*TRAINERS]


def __getattr__(name: str) -> Any:
    if name not in TRAINERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {  # all of them: a training checks plans['semi'] for the settings of every trainer
        trainer: importlib.import_module(f"semi_nnunet.methods.{facts.file.stem}")
        for trainer, facts in TRAINERS.items()
    }
    return getattr(modules[name], name)
