"""Imports that the processes of ``tests.forking`` need; they take seconds."""

from pathlib import Path

import nnunetv2.training.nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

import semi_nnunet.pseudo_labels.predictor  # noqa: F401
from semi_nnunet.discovery.classes import trainer_classes

trainers = nnunetv2.training.nnUNetTrainer
recursive_find_python_class(str(Path(*trainers.__path__)), "NoTrainer", trainers.__name__)
trainer_classes()
