"""A model teaches a small network, fold by fold, and is compared with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import semi_nnunet.workflows.slim as under_test
from semi_nnunet.cli.main import main
from semi_nnunet.planning.slim import SlimNetwork
from semi_nnunet.util.files import write_json
from semi_nnunet.workflows.slim import STUDENT, scale_learning_rate
from tests.trainers import SHORT, TRAINERS, run_epochs, save_as_trained


@pytest.fixture
def teacher(make_trainer, prepared_dataset) -> tuple[Path, object]:
    """A trained and validated fold 0 of a network that has something to lose."""
    dataset = prepared_dataset()
    earlier = (dataset.preprocessed / "nnUNetPlans.json").read_text()
    plans = json.loads(earlier)
    network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [16, 32, 64]
    plans["semi"] = {"SemiMeanTeacherTrainer": {**SHORT, "epochs": 1}}
    write_json(dataset.preprocessed / "nnUNetPlans.json", plans)
    trainer = make_trainer("SemiMeanTeacherTrainer", fold=0, start=False, epochs=1)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    folder = save_as_trained(trainer)
    trainer.perform_actual_validation()
    yield folder, dataset
    (dataset.preprocessed / "nnUNetPlans.json").write_text(earlier)
    for path in dataset.preprocessed.glob("nnUNetPlans_*.json"):
        path.unlink()


def words(folder: Path, *more: str) -> list[str]:
    name = str(folder.relative_to(folder.parents[1]))
    return ["distil", "-m", name, "-f", "0", "--device", "cpu", "--threads", "1", *more]


def test_plans_have_the_small_network_and_its_teacher(teacher, capsys) -> None:
    folder, dataset = teacher
    assert main(words(folder, "--share", "0.2", "--plan-only", "--set", "epochs=3")) == 0
    output = capsys.readouterr().out
    plans = json.loads((dataset.preprocessed / "nnUNetPlans_slim.json").read_text())
    network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    assert network["features_per_stage"][0] < 16 and plans["plans_name"] == "nnUNetPlans_slim"
    keys = ("spacing", "patch_size", "data_identifier", "batch_size")
    original = dataset.plans["configurations"]["2d"]
    assert all(plans["configurations"]["2d"][key] == original[key] for key in keys)
    assert plans["configurations"]["3d_fullres"] == dataset.plans["configurations"]["3d_fullres"]
    assert "teacher     16 32 64 features" in output and "wrote nnUNetPlans_slim" in output
    settings = plans["semi_planned"]["given"]
    name = "SemiMeanTeacherTrainer__nnUNetPlans__2d/fold_{fold}"
    assert settings[STUDENT]["models"] == [f"{dataset.name}/{name}"] and settings["epochs"] == 3


def test_another_data_set_with_the_same_labels_can_be_learned_from(teacher, capsys) -> None:
    folder, dataset = teacher
    other = dataset.preprocessed.with_name("Dataset950_Other")
    shutil.copytree(dataset.preprocessed, other)
    write_json(other / "nnUNetPlans.json", {**dataset.plans, "dataset_name": other.name})
    try:
        options = ["-d", other.name, "--share", "0.2", "--plan-only"]
        assert main(words(folder, *options)) == 0
        plans = json.loads((other / "nnUNetPlans_slim.json").read_text())
        (model,) = plans["semi_planned"]["given"][STUDENT]["models"]
        assert model == f"{dataset.name}/SemiMeanTeacherTrainer__nnUNetPlans__2d/fold_{{fold}}"
        assert not (dataset.preprocessed / "nnUNetPlans_slim.json").exists()
        description = json.loads((other / "dataset.json").read_text())
        write_json(other / "dataset.json", {**description, "labels": {"background": 0, "one": 1}})
        assert main(words(folder, *options, "--new-plans", "nnUNetPlans_new")) == 2
        assert "cannot label the images of Dataset950_Other" in capsys.readouterr().err
    finally:
        shutil.rmtree(other)


@pytest.mark.parametrize(
    ("semi", "rate"),
    [
        ({"optimizer": "adam", "initial_lr": 1e-3}, ["SemiDistillationTrainer.initial_lr=0.004"]),
        ({"2d": {"optimizer": "adam", "initial_lr": 2e-3}}, [f"{STUDENT}.initial_lr=0.008"]),
        ({"optimizer": "adam"}, []),
        ({"optimizer": "sgd", "initial_lr": 0.01}, []),
        ({}, []),
    ],
)
def test_a_narrower_network_learns_at_a_higher_rate_of_adam(semi, rate) -> None:
    def network(features: int) -> SlimNetwork:
        kwargs = {"features_per_stage": [features, 2 * features]}
        return SlimNetwork({"architecture": {"arch_kwargs": kwargs}}, 1, 1)

    plans = {"semi": semi, "configurations": {"2d": {}}}
    assert scale_learning_rate(plans, "2d", network(16), network(4)) == rate


@pytest.mark.slow
def test_the_student_is_trained_and_compared_and_the_command_can_be_repeated(
    teacher, capsys
) -> None:
    folder, dataset = teacher
    short = ["epochs=1", "steps_per_epoch=2", "validation_steps_per_epoch=1"]
    for _ in range(2):
        assert main(words(folder, "--share", "0.2", "--set", *short)) == 0
        output = capsys.readouterr().out
        assert "the teacher's 0." in output and "(one case only) on 1 validation case\n" in output
    assert "1 jobs, 1 done before" in output
    student = folder.with_name(f"{STUDENT}__nnUNetPlans_slim__2d") / "fold_0"
    used = json.loads((student / "semi_settings.json").read_text())["settings"]["models"]["value"]
    assert used == [f"{dataset.name}/{folder.name}/fold_{{fold}}"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--share", "2"], "--share: must be above 0 and at most 1, got 2"),
        (["--new-plans", "nnUNetPlans"], "--new-plans: must differ from nnUNetPlans"),
        (["-f", "3"], "-f: must name folds of"),
    ],
)
def test_mistakes(more, message, teacher, capsys) -> None:
    assert main(words(teacher[0], *more)) == 2
    assert message in capsys.readouterr().err
    assert not list(teacher[0].parent.glob(f"{STUDENT}*"))
    assert not list(teacher[1].preprocessed.glob("nnUNetPlans_*.json"))


def test_all_mistakes_are_reported_at_once(teacher, capsys) -> None:
    options = ["--share", "0", "--seconds", "nan", "-f", "9", "--new-plans", "a/b", "-d", "77"]
    assert main(words(teacher[0], *options)) == 2
    output = capsys.readouterr().err
    for message in ("--share: ", "--seconds: ", "-f: ", "--new-plans", "the number 77"):
        assert message in output
    assert main(["distil", "-m", "no_model", "--share", "0"]) == 2
    output = capsys.readouterr().err
    assert "--share: " in output and "-m: no trained model" in output


def test_plans_that_slim_did_not_write_are_not_lost(teacher, capsys) -> None:
    folder, dataset = teacher
    assert main(words(folder, "--share", "0.2", "--plan-only", "--set", "epoch=3")) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err
    assert not (dataset.preprocessed / "nnUNetPlans_slim.json").exists()  # without a teacher
    assert main(["plan", "-d", dataset.name, "--new-plans", "nnUNetPlans_mine", "-c", "2d"]) == 0
    path = dataset.preprocessed / "nnUNetPlans_mine.json"
    earlier = path.read_bytes()
    assert main(words(folder, "--plan-only", "--new-plans", "nnUNetPlans_mine")) == 2
    assert "must be of new plans, got nnUNetPlans_mine, which would be lost" in (
        capsys.readouterr().err
    )
    assert path.read_bytes() == earlier


def test_the_network_chosen_by_its_seconds_is_kept(teacher, capsys, monkeypatch) -> None:
    folder, dataset = teacher
    path = dataset.preprocessed / "nnUNetPlans_slim.json"
    fast = {"seconds": 1e-9}
    monkeypatch.setattr(
        under_test,
        "measure_image_seconds",
        lambda network_to_time, *_: fast["seconds"] * network_to_time.operations,
    )
    goal = ["--share", "1", "--seconds", "0.001", "--plan-only"]
    assert main(words(folder, *goal)) == 0
    earlier = json.loads(path.read_text())["configurations"]
    fast["seconds"] = 1e-5  # the machine is busy: only the smallest would be fast enough
    assert main(words(folder, *goal, "--set", "epochs=7")) == 0
    later = json.loads(path.read_text())
    assert later["configurations"] == earlier
    assert later["semi_planned"]["given"]["epochs"] == 7

    student = folder.with_name(f"{STUDENT}__nnUNetPlans_slim__2d") / "fold_0"
    assert main(words(folder, "--share", "0.9", "--plan-only")) == 0  # nothing was trained yet
    assert main(words(folder, *goal)) == 2  # now that network would be too slow
    capsys.readouterr()
    student.mkdir(parents=True)
    (student / "checkpoint_latest.pth").touch()
    assert main(words(folder, "--share", "0.2", "--plan-only")) == 2
    output = capsys.readouterr().err
    assert "nnUNetPlans_slim" in output and "--share 0.9" in output
    assert main(words(folder, "--share", "0.9", "--plan-only")) == 0
    shutil.rmtree(student.parent)


def test_the_default_teacher_is_known() -> None:
    assert STUDENT in TRAINERS
