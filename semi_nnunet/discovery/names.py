"""The default trainers and plans of commands."""

from __future__ import annotations

BASELINE = "SemiBaselineTrainer"  # all methods are compared with it
RECOMMENDED = "SemiUnifiedTrainer"  # to be tried first: docs/choosing_a_method.md
DEFAULT_PLANS = "nnUNetPlans"  # those that nnU-Net's planner writes
