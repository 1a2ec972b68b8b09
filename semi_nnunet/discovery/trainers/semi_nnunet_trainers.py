"""The one file nnU-Net searches for our trainers.

Point ``nnUNet_extTrainer`` at its folder, or use ``semi_nnunet register``.
"""

from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer
from semi_nnunet.methods.supervised import SemiBaselineTrainer
from semi_nnunet.methods.uncertainty_aware import SemiUncertaintyAwareTrainer

__all__ = ["SemiBaselineTrainer", "SemiMeanTeacherTrainer", "SemiUncertaintyAwareTrainer"]
