"""The one file nnU-Net searches for our trainers.

Point ``nnUNet_extTrainer`` at its folder, or use ``semi_nnunet register``.
"""

from semi_nnunet.methods.copy_paste import SemiBCPTrainer
from semi_nnunet.methods.cross_pseudo_supervision import SemiCPSTrainer
from semi_nnunet.methods.diffusion import SemiDiffusionTrainer
from semi_nnunet.methods.distillation import SemiDistillationTrainer
from semi_nnunet.methods.fixmatch import SemiFixMatchTrainer
from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer
from semi_nnunet.methods.mixmatch import SemiMixMatchTrainer
from semi_nnunet.methods.pretraining import SemiPretrainTrainer
from semi_nnunet.methods.supervised import SemiBaselineTrainer
from semi_nnunet.methods.uncertainty_aware import SemiUncertaintyAwareTrainer
from semi_nnunet.methods.unified import SemiUnifiedTrainer
from semi_nnunet.methods.unimatch import SemiUniMatchTrainer

__all__ = [
    "SemiBCPTrainer",
    "SemiBaselineTrainer",
    "SemiCPSTrainer",
    "SemiDiffusionTrainer",
    "SemiDistillationTrainer",
    "SemiFixMatchTrainer",
    "SemiMeanTeacherTrainer",
    "SemiMixMatchTrainer",
    "SemiPretrainTrainer",
    "SemiUncertaintyAwareTrainer",
    "SemiUniMatchTrainer",
    "SemiUnifiedTrainer",
]
