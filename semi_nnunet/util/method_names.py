"""Names of methods as tables, reports and documentation show them."""

from __future__ import annotations

METHOD_NAMES = {
    "SemiBaselineTrainer": "Baseline",
    "SemiBCPTrainer": "BCP",
    "SemiCPSTrainer": "CPS",
    "SemiDiffusionTrainer": "A&D",
    "SemiDistillationTrainer": "Distillation",
    "SemiFixMatchTrainer": "FixMatch",
    "SemiMeanTeacherTrainer": "Mean Teacher",
    "SemiMixMatchTrainer": "MixMatch",
    "SemiPretrainTrainer": "Pre-training",
    "SemiUncertaintyAwareTrainer": "UA-MT",
    "SemiUnifiedTrainer": "Unified",
    "SemiUniMatchTrainer": "UniMatch",
}


def name_method(trainer: str) -> str:
    """Return the method's name; trainers of others keep their names, ours without our affixes.

    >>> name_method("SemiDiffusionTrainer"), name_method("nnUNetTrainer")
    ('A&D', 'nnUNetTrainer')
    >>> name_method("SemiWonderTrainer")
    'Wonder'
    """
    if trainer in METHOD_NAMES:
        return METHOD_NAMES[trainer]
    if trainer.startswith("Semi") and trainer.endswith("Trainer"):
        return trainer.removeprefix("Semi").removesuffix("Trainer") or trainer
    return trainer
