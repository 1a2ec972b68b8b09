"""The commands that error messages tell the user to type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.training.next_command import NextCommand
from semi_nnunet.util.errors import UserError

COMMAND = NextCommand("Dataset042_P", "nnUNetPlans_cpu", "2d", "SemiCPSTrainer", None)


def test_a_folder_that_is_not_there_is_made_by_the_command_that_is_named(tmp_path: Path) -> None:
    COMMAND.require_preprocessed(tmp_path)
    wanted = "semi_nnunet preprocess -d Dataset042_P -c 2d -p nnUNetPlans_cpu"
    with pytest.raises(UserError, match=f"2d is not preprocessed, .*Fix: {wanted}"):
        COMMAND.require_preprocessed(tmp_path / "nothing")


def test_the_stage_before_is_trained_by_the_same_trainer() -> None:
    second = replace(COMMAND, configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    expected = "nnUNetv2_train Dataset042_P 3d_lowres FOLD -tr SemiCPSTrainer"
    assert second.train_previous_stage.endswith(expected)
