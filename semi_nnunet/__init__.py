"""Semi-supervised nnU-Net v2: put unlabelled images into ``imagesUn``, then train as usual.

Everything that ``semi_nnunet VERB`` does is a function here, too, imported when it is first used::

    import semi_nnunet

    semi_nnunet.prepare("42", ["2d"])
    semi_nnunet.plan("42", settings={"epochs": 300})
    fold = semi_nnunet.train("42", "2d", "0", "SemiUnifiedTrainer")
    semi_nnunet.predict(fold, "images", "predictions")
    semi_nnunet.evaluate("predictions", "references")

A mistake in what they are given raises :class:`~semi_nnunet.util.errors.UserError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semi_nnunet.automatic.run import auto
    from semi_nnunet.benchmarking.run import benchmark
    from semi_nnunet.challenge.efficiency import efficiency
    from semi_nnunet.challenge.packaging import package
    from semi_nnunet.data.splitting import split
    from semi_nnunet.datasets.converters import convert
    from semi_nnunet.deploy.export import export
    from semi_nnunet.deploy.install import install
    from semi_nnunet.evaluation.measuring import evaluate
    from semi_nnunet.inference.predict import predict
    from semi_nnunet.inference.tuning import tune
    from semi_nnunet.pseudo_labels.choice import Choice
    from semi_nnunet.pseudo_labels.distillation import Distillation, distil
    from semi_nnunet.pseudo_labels.label import pseudo_label
    from semi_nnunet.pseudo_labels.select import select
    from semi_nnunet.report.write import write_report
    from semi_nnunet.runs.compare import compare
    from semi_nnunet.runs.crossval import crossval
    from semi_nnunet.runs.ensemble import ensemble
    from semi_nnunet.runs.launching import Launcher
    from semi_nnunet.runs.plan import plan
    from semi_nnunet.runs.prepare import prepare
    from semi_nnunet.runs.slim import slim
    from semi_nnunet.runs.status import status
    from semi_nnunet.runs.train import train
    from semi_nnunet.util.errors import UserError

__version__ = "0.2.0"

__all__ = [
    "Choice",
    "Distillation",
    "Launcher",
    "UserError",
    "auto",
    "benchmark",
    "compare",
    "convert",
    "crossval",
    "distil",
    "efficiency",
    "ensemble",
    "evaluate",
    "export",
    "install",
    "package",
    "plan",
    "predict",
    "prepare",
    "pseudo_label",
    "select",
    "slim",
    "split",
    "status",
    "train",
    "tune",
    "write_report",
]

_MODULES = {  # name -> where it is
    "Choice": "pseudo_labels.choice",
    "Distillation": "pseudo_labels.distillation",
    "Launcher": "runs.launching",
    "UserError": "util.errors",
    "auto": "automatic.run",
    "benchmark": "benchmarking.run",
    "compare": "runs.compare",
    "convert": "datasets.converters",
    "crossval": "runs.crossval",
    "distil": "pseudo_labels.distillation",
    "efficiency": "challenge.efficiency",
    "ensemble": "runs.ensemble",
    "evaluate": "evaluation.measuring",
    "export": "deploy.export",
    "install": "deploy.install",
    "package": "challenge.packaging",
    "plan": "runs.plan",
    "predict": "inference.predict",
    "prepare": "runs.prepare",
    "pseudo_label": "pseudo_labels.label",
    "select": "pseudo_labels.select",
    "slim": "runs.slim",
    "split": "data.splitting",
    "status": "runs.status",
    "train": "runs.train",
    "tune": "inference.tuning",
    "write_report": "report.write",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: PyTorch and nnU-Net take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
