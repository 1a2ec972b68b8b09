"""Every step of an auto is a command that a user could type."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.automatic import settings
from semi_nnunet.automatic.commands import Commands
from semi_nnunet.automatic.schedule import Round
from semi_nnunet.cli.main import build_parser
from semi_nnunet.runs.launching import Launcher
from tests.runs.jobs import leave

SHORT = Round("short", ("SemiBaselineTrainer", "SemiCPSTrainer"), ("0", "1"), 100)
ROUND = Round("full", ("SemiBaselineTrainer", "SemiCPSTrainer"), ("all", "2"), 200)
LAUNCHERS = [
    Launcher(),
    Launcher(jobs=2, threads=1, device="cuda"),
    Launcher("slurm", sbatch="--gres=gpu:1"),
    Launcher("ray", ray_address="host:1"),
]


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda one: one.launcher)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_commands_are_understood(
    empty, launcher: Launcher, device: str, fast: bool, monkeypatch
) -> None:
    monkeypatch.setattr(settings, "computes_bfloat16_fast", lambda: fast)
    commands = Commands(empty, "2d", launcher, device, Path("out"))
    all_of_them = [
        *commands.preparing(),
        *commands.measuring(ROUND.trainers, "0"),
        *commands.timing(ROUND.trainers, 2),
        *commands.trainings(SHORT, 50),
        *commands.validating(SHORT),
        *commands.trainings(ROUND, 50),
        *commands.shipping("SemiCPSTrainer"),
    ]
    for _, (program, verb, *words) in all_of_them:
        assert program == "semi_nnunet"
        parsed = build_parser(str(verb)).parse_args([str(verb), *map(str, words)])
        assert parsed.verb == verb
        if verb == "crossval":
            assert parsed.launcher == launcher.launcher and parsed.jobs == launcher.jobs
    budgets = ["--budget" in words for _, words in all_of_them]
    assert any(budgets) == (device == "cpu")
    in_bfloat16 = ["mixed_precision=bfloat16" in words for _, words in all_of_them]
    assert any(in_bfloat16) == (device == "cpu" and fast)  # told once: later plans keep it


def test_the_jobs_of_a_round_are_those_that_its_crossval_makes(empty) -> None:
    commands = Commands(empty, "2d", Launcher(), "cpu", Path("out"))
    jobs = commands.jobs_of(ROUND)
    assert {(job.trainer, job.fold) for job in jobs} == {
        (trainer, fold) for trainer in ROUND.trainers for fold in ROUND.folds
    }
    assert {job.plans for job in jobs} == {"nnUNetPlans_auto_full"}


def test_what_chooses_is_trained_and_validated_and_predicts_no_test_case(empty) -> None:
    (empty.raw / "labelsTs").mkdir()
    (empty.raw / "labelsTs" / "case_0.nii.gz").touch()
    commands = Commands(empty, "2d", Launcher(), "cpu", Path("out"))
    (_, _), (_, train) = commands.trainings(SHORT, 50)
    parsed = build_parser("crossval").parse_args([*map(str, train[1:])])
    assert parsed.steps == ["train"]
    jobs = commands.jobs_of(SHORT)
    assert len([*commands.validating(SHORT)]) == len(jobs) == 4
    for job in jobs:
        leave(job)
        job.validation.mkdir()
        (job.validation / "summary.json").touch()
        assert job.is_done
    first = jobs[0].tables()["validation"]
    first.touch()
    asked = [words for _, words in commands.validating(SHORT)]
    assert [words[3] for words in asked] == [job.validation for job in jobs[1:]]
    (_, _), (_, train) = commands.trainings(ROUND, 50)
    assert "--steps" not in train
