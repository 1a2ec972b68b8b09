"""What the processes of ``tests.forking`` need; importing it takes seconds."""

from pathlib import Path

import nnunetv2.training.nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

import semi_nnunet.data.preprocessing  # noqa: F401
import semi_nnunet.discovery.trainers.semi_nnunet_trainers  # noqa: F401
import semi_nnunet.pseudo_labels.predictor  # noqa: F401

trainers = nnunetv2.training.nnUNetTrainer
recursive_find_python_class(str(Path(*trainers.__path__)), "nobody", trainers.__name__)  # all
