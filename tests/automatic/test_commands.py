"""Every step of an auto is a command that a user could type."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.automatic import commands as auto_commands
from semi_nnunet.automatic.commands import (
    ADAM_BELOW,
    PLANS,
    AutoCommands,
    list_device_settings,
)
from semi_nnunet.automatic.schedule import TrainingRound
from semi_nnunet.runs.launching import JobLauncher
from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.util.files import sha256_of_file, write_json
from tests.runs.jobs import leave
from tests.runs.parsing import parse_command

SHORT = TrainingRound("short", ("SemiBaselineTrainer", "SemiCPSTrainer"), ("0", "1"), 100)
ROUND = TrainingRound("full", ("SemiBaselineTrainer", "SemiCPSTrainer"), ("all", "2"), 200)
LAUNCHERS = [
    JobLauncher(),
    JobLauncher(jobs=2, threads=1, device="cuda"),
    JobLauncher("slurm", sbatch="--gres=gpu:1"),
    JobLauncher("ray", ray_address="host:1"),
]


def test_a_model_that_was_trained_again_is_exported_again(empty, tmp_path: Path) -> None:
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", tmp_path)
    checkpoint = commands.find_last_job("SemiCPSTrainer").folder / "checkpoint_final.pth"
    checkpoint.parent.mkdir(parents=True)
    name = f"SemiCPSTrainer__{commands.name_plans('full')}__2d"
    archive = tmp_path / "exported" / f"{empty.raw.name}__{name}.zip"
    plans = f"{commands.name_plans('full')}_SemiCPSTrainer"
    model = archive.parent / empty.raw.name / f"nnUNetTrainer__{plans}__2d"

    def export(weights: bytes) -> bool:
        checkpoint.write_bytes(weights)
        commands.remove_outdated_export("SemiCPSTrainer")
        exports = any(title == "export" for title, _ in commands.build_results("SemiCPSTrainer"))
        if exports:
            assert not archive.exists() and not model.exists()
            model.mkdir(parents=True)
            folds = {"all": {"source_sha256": sha256_of_file(checkpoint)}}
            write_json(model / "semi_nnunet.json", {"folds": folds})
            archive.touch()
        return exports

    assert [export(b"first"), export(b"first"), export(b"second"), export(b"second")] == [
        True, False, True, False,
    ]  # fmt: skip
    earlier = [path.with_name(path.name.replace("CPS", "BCP")) for path in (archive, model)]
    archive.rename(earlier[0]), model.rename(earlier[1])  # another method was exported
    assert export(b"second") and not any(path.exists() for path in earlier)
    shutil.rmtree(model)  # without it, the origin of the zip is unknown
    assert export(b"second")


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher.launcher)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_commands_are_understood(
    empty, launcher: JobLauncher, device: str, fast: bool, monkeypatch
) -> None:
    monkeypatch.setattr(auto_commands, "computes_bfloat16_fast", lambda: fast)
    commands = AutoCommands(empty, "2d", launcher, device, Path("out"))
    all_of_them = [
        *commands.build_preparation(),
        *commands.build_timing(ROUND.trainers, "0"),
        *commands.build_benchmark(ROUND.trainers, 2),
        *commands.build_trainings(SHORT, 50),
        *commands.build_evaluations(SHORT),
        *commands.build_trainings(ROUND, 50),
        *commands.build_results("SemiCPSTrainer"),
        *commands.build_choice_of_cases(),
        ("choose with a model", commands.build_proposals("SemiCPSTrainer")),
    ]
    for _, words in all_of_them:
        parsed = parse_command(words)
        if words[1] == "crossval" and launcher != JobLauncher():
            assert parsed.launcher.launcher == launcher.launcher
            assert parsed.launcher.jobs == launcher.jobs
    budgets = ["--budget" in words for _, words in all_of_them]
    assert any(budgets) == (device == "cpu")
    in_bfloat16 = ["mixed_precision=bfloat16" in words for _, words in all_of_them]
    assert any(in_bfloat16) == (device == "cpu" and fast)  # set once: later plans keep it


def test_the_jobs_of_a_round_match_its_crossval(empty) -> None:
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", Path("out"))
    jobs = commands.list_jobs(ROUND)
    assert {(job.trainer, job.fold) for job in jobs} == {
        (trainer, fold) for trainer in ROUND.trainers for fold in ROUND.folds
    }
    assert {job.plans for job in jobs} == {"nnUNetPlans_auto_full"}


def test_in_the_last_round_the_baseline_has_its_own_epochs(empty) -> None:
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", Path("out"))
    (_, plan), _ = commands.build_trainings(replace(ROUND, baseline_ratio=3.3), 50)
    assert {"epochs=4", "SemiBaselineTrainer.2d.epochs=13"} <= {*plan}  # 660 steps are 13 epochs


def test_lengths_that_the_user_set_do_not_change_those_of_a_round(empty) -> None:
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", Path("out"))
    (_, plan), _ = commands.build_trainings(SHORT, 50)
    (_, timing), _ = commands.build_timing(SHORT.trainers, "0")
    for words, epochs in ((plan, SHORT.steps // 50), (timing, 2)):
        settings = [word for word in map(str, words) if "=" in word]
        ours = parse_assignments(settings)
        for trainer in SHORT.trainers:  # the innermost layer, which overrides all others
            assert ours[trainer]["2d"]["epochs"] == epochs
            assert "steps_per_epoch" in ours[trainer]["2d"]


def test_rounds_that_choose_predict_no_test_case(empty) -> None:
    (empty.raw / "labelsTs").mkdir()
    (empty.raw / "labelsTs" / "case_0.nii.gz").touch()
    commands = AutoCommands(empty, "2d", JobLauncher(), "cpu", Path("out"))
    (_, _), (_, train) = commands.build_trainings(SHORT, 50)
    parsed = parse_command(train)
    assert parsed.stages == ["train"]
    jobs = commands.list_jobs(SHORT)
    assert len([*commands.build_evaluations(SHORT)]) == len(jobs) == 4
    for job in jobs:
        leave(job)
        job.validation.mkdir()
        (job.validation / "summary.json").write_text("x")
        assert job.is_done
    first = jobs[0].tables()["validation"]
    first.write_text("x")
    evaluations = [words for _, words in commands.build_evaluations(SHORT)]
    assert [words[3] for words in evaluations] == [job.validation for job in jobs[1:]]
    (_, _), (_, train) = commands.build_trainings(ROUND, 50)
    assert "--stages" not in train


def test_the_optimizer_depends_on_the_steps(empty) -> None:
    """Plans of a short choice must not keep Adam in a long one, nor in another configuration."""
    planned = AutoCommands(empty, "2d", JobLauncher(), "cpu", Path("out"))
    few = parse_assignments(planned.list_optimiser_settings(ADAM_BELOW - 1))
    assert few == {"2d": {"optimizer": "adam", "initial_lr": 0.001}}
    empty.preprocessed.mkdir(parents=True, exist_ok=True)
    for semi, optimizer, rate in (
        ({}, "sgd", 0.01),
        ({"optimizer": "adam", "2d": {"initial_lr": 0.002}}, "adam", 0.002),
    ):
        plans = {"configurations": {}, "plans_name": PLANS, "semi": semi}
        write_json(empty.preprocessed / f"{PLANS}.json", plans)
        many = parse_assignments(planned.list_optimiser_settings(ADAM_BELOW))
        assert many == {"2d": {"optimizer": optimizer, "initial_lr": rate}}


@pytest.mark.parametrize("fast", [True, False])
def test_the_arithmetic_depends_on_the_device(fast: bool, monkeypatch) -> None:
    monkeypatch.setattr(auto_commands, "computes_bfloat16_fast", lambda: fast)
    planned = parse_assignments(list_device_settings("cpu"))
    assert planned == ({"mixed_precision": "bfloat16"} if fast else {})
    assert list_device_settings("cuda") == ()
