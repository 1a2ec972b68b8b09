"""The trainers that commands take where nobody names one."""

from __future__ import annotations

BASELINE = "SemiBaselineTrainer"  # what all methods are compared with
RECOMMENDED = "SemiUnifiedTrainer"  # to be tried first: docs/choosing_a_method.md
