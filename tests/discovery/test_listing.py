"""The names and facts of all trainers: ours, nnU-Net's and the user's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.discovery.classes import find_trainer_class
from semi_nnunet.discovery.listing import (
    all_trainers,
    other_trainers,
    our_trainers,
    stock_trainers,
    summary_of,
    unknown_trainers,
)
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.training.trainer import SemiTrainer

USERS = '''"""A method of the user's."""
from __future__ import annotations
from dataclasses import dataclass
from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer
from semi_nnunet.settings.schema import setting
from semi_nnunet.training.trainer import SemiTrainer

@dataclass(frozen=True, kw_only=True)
class UserSettings(SemiMeanTeacherTrainer.settings_class):
    user_weight: float = setting(1.5, "a guess", low=0)

class UserBaseTrainer(SemiTrainer, is_method=False):
    taught_by: str = "SemiCPSTrainer"

class SemiUserTrainer(UserBaseTrainer):
    settings_class: type = UserSettings
    def terms(self, labelled, unlabelled):
        yield self.supervised(labelled)
'''


@pytest.fixture
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of trainers of the user's."""
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    methods = dict(SemiTrainer.methods)
    yield tmp_path
    for name in ("users_method", "broken"):
        sys.modules.pop(name, None)
    SemiTrainer.methods.clear()
    SemiTrainer.methods.update(methods)


def test_nnunets_trainers_are_known_and_none_of_ours() -> None:
    stock = stock_trainers()
    assert {"nnUNetTrainer", "nnUNetTrainer_250epochs"} <= stock
    assert stock.isdisjoint(our_trainers())
    assert {*our_trainers(), *stock} <= set(all_trainers())


def test_a_trainer_of_the_user_is_known_without_an_import_of_its_file(users_folder: Path) -> None:
    (users_folder / "mine.py").write_text("class MyTrainer: pass\nraise SystemExit('it ran')\n")
    (users_folder / "notes.py").write_text("this is no Python")
    marked = "\ufeffclass MarkedTrainer: pass\n".encode()
    coded = "# coding: latin-1\nclass CodedTrainer: name = 'M\xfcller'\n".encode("latin-1")
    for name, content in (("marked", marked), ("coded", coded)):
        (users_folder / f"{name}.py").write_bytes(content)
    assert not list(unknown_trainers(["MarkedTrainer", "CodedTrainer"]))
    assert "MyTrainer" in other_trainers() - stock_trainers()
    assert "MyTrainer" in all_trainers() and "MyTrainer" not in our_trainers()
    assert not list(unknown_trainers(["MyTrainer"]))


def test_facts_and_settings_of_a_users_method_are_those_of_its_class(users_folder: Path) -> None:
    """Annotated and inherited attributes count, too."""
    (users_folder / "users_method.py").write_text(USERS)
    facts = our_trainers()["SemiUserTrainer"]
    assert facts.file == users_folder / "users_method.py" and facts.taught_by == "SemiCPSTrainer"
    assert "UserBaseTrainer" not in our_trainers()
    settings = settings_classes()["SemiUserTrainer"]()
    assert settings.user_weight == 1.5 and settings.teacher_noise == 0.0
    assert summary_of("SemiUserTrainer") == "A method of the user's."
    assert issubclass(find_trainer_class("SemiUserTrainer"), SemiTrainer)


def test_a_users_trainer_accepts_plans_for_all_of_ours(
    users_folder: Path, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net imports the user's file only, which imports one of ours."""
    (users_folder / "users_method.py").write_text(
        "from semi_nnunet.methods.fixmatch import SemiFixMatchTrainer\n"
        "class SemiUserTrainer(SemiFixMatchTrainer): pass\n"
    )
    users = find_trainer_class("SemiUserTrainer")
    monkeypatch.setattr(SemiTrainer, "methods", {"SemiUserTrainer": users.settings_class})
    first = make_trainer(users, start=False)
    plans = first.plans_manager.plans
    plans["semi"] |= {"SemiMixMatchTrainer": {"2d": {"ema_decay": 0.5}}}
    trainer = users(plans, "2d", 0, first.dataset_json, torch.device("cpu"))
    trainer.initialize()
    trainer.on_train_start()
    assert trainer.settings.ema_decay != 0.5


def test_a_users_file_that_cannot_be_imported_is_logged(
    users_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (users_folder / "broken.py").write_text(
        "import semi_nnunet\nclass A: pass\nraise SystemExit(3)"
    )
    assert "A" not in our_trainers() and "A" in all_trainers()
    assert "SystemExit(3)" in capsys.readouterr().err


def test_the_nearest_name_of_a_misspelled_trainer_is_suggested() -> None:
    (problem,) = unknown_trainers(["SemiMeanTeachrTrainer"])
    assert "SemiMeanTeacherTrainer" in problem.fix


def test_listing_imports_neither_torch_nor_nnunets_trainer() -> None:
    code = (
        "import sys; from semi_nnunet.discovery.listing import all_trainers, our_trainers; "
        "all_trainers(), our_trainers(); "
        "sys.exit(sum(m in sys.modules for m in ('torch', 'nnunetv2.training', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
