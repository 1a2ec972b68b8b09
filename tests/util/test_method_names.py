"""Every trainer has the name that the documentation uses."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.discovery.trainers.semi_nnunet_trainers import TRAINERS
from semi_nnunet.util.method_names import METHOD_NAMES, name_method

PAGE = Path(__file__).resolve().parents[2] / "docs" / "choosing_a_method.md"


def test_every_trainer_has_a_name_of_its_own() -> None:
    assert {*METHOD_NAMES} == {*TRAINERS}
    assert len({*METHOD_NAMES.values()}) == len(METHOD_NAMES)


def test_the_names_are_those_of_the_documentation() -> None:
    page = PAGE.read_text(encoding="utf-8").lower()
    for trainer, name in METHOD_NAMES.items():
        assert trainer == "SemiPretrainTrainer" or name.lower() in page


def test_trainers_of_others_keep_their_names() -> None:
    assert name_method("nnUNetTrainer") == "nnUNetTrainer"
    assert name_method("SemiTrainer") == "SemiTrainer"  # nothing would be left
