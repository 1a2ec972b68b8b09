"""Values go to TensorBoard and MLflow, and a failing tracker does not end the training."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.training.trackers import MlflowTracker, TensorBoardTracker
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs


def test_tensorboard_files_hold_the_logged_values(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra semi_nnunet[tensorboard] is missing")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoardTracker(tmp_path)
    tracker.update_config({"epochs": 3})
    for epoch in range(3):
        tracker.log("semi/loss", np.float64(epoch / 2), epoch)
    tracker.log_summary("final_dice", 0.8)
    tracker.close()
    assert list((tmp_path / "tensorboard").glob("events*"))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("semi/loss")] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
    ]


def test_repeated_epochs_are_in_tensorboard_once(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra semi_nnunet[tensorboard] is missing")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last, resumed in ((0, 15, False), (10, 20, True)):
        tracker = TensorBoardTracker(tmp_path, resumed)
        tracker.update_config({"epochs": 20})
        for epoch in range(first, last):
            for key in ("semi/loss", "semi/dice"):
                tracker.log(key, first, epoch)
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for key in ("semi/loss", "semi/dice"):
        values = [(event.step, event.value) for event in events.Scalars(key)]
        assert values == [(epoch, 10 * (epoch >= 10)) for epoch in range(20)]


def test_a_full_disk_below_tensorboard_is_one_warning(tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="the extra semi_nnunet[tensorboard] is missing")
    tracker = TensorBoardTracker(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    tracker.writer.add_scalar = full
    for epoch in range(3):
        tracker.log("semi/loss", 0.5, epoch)
    output = capsys.readouterr().err
    assert output.count("WARNING: TensorBoard") == 1 and "No space left" in output


@pytest.mark.parametrize(("module", "name"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_a_missing_extra_is_named(module, name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UserError, match=name) as error:
        if name == "mlflow":
            MlflowTracker(tmp_path, "data", "run", False, tmp_path)
        else:
            TensorBoardTracker(tmp_path)
    assert f"semi_nnunet[{name}]" in error.value.fix


@pytest.fixture
def no_server(monkeypatch):
    pytest.importorskip("mlflow", reason="the extra semi_nnunet[mlflow] is missing")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def find_runs(results: Path, experiment: str):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{results}/mlflow.db")
    number = client.get_experiment_by_name(experiment).experiment_id
    return client, client.search_runs([number])


@pytest.mark.usefixtures("no_server")
def test_a_training_is_a_run_of_mlflow(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", mlflow=True)
    run_epochs(trainer, 2)
    results = Path(trainer.output_folder).parents[2]
    client, (run,) = find_runs(results, trainer.plans_manager.dataset_name)
    assert run.info.run_name == "SemiMeanTeacherTrainer__nnUNetPlans__2d fold_0"
    assert run.data.params["ema_decay"] == str(trainer.settings.ema_decay)
    rows = trainer.history.rows
    for key in ("loss/consistency", "dice/deployed", "weight/consistency"):
        metrics = client.get_metric_history(run.info.run_id, f"semi/{key}")
        assert [(metric.step, metric.value) for metric in metrics] == [
            (r["epoch"], r[key]) for r in rows
        ]
    assert run.info.status == "RUNNING"
    for tracker in trainer.run_log.trackers:
        tracker.close()
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


@pytest.mark.usefixtures("no_server")
def test_a_continued_training_continues_its_run_and_a_new_one_gets_its_own(tmp_path):
    def open_tracker(resumed):
        return MlflowTracker(tmp_path / "fold_0", "data", "run", resumed, tmp_path)

    first = open_tracker(False)
    first.update_config({"epochs": 3})
    again = open_tracker(True)
    again.update_config({"epochs": 4, "seed": 1})  # a parameter that changed stays what it was
    again.log("dice", float("nan"), 0)
    again.log("dice", 0.5, 1)
    assert again.run_id == first.run_id and open_tracker(False).run_id != first.run_id
    client, runs = find_runs(tmp_path, "data")
    assert len(runs) == 2
    run = client.get_run(first.run_id)
    assert run.data.params == {"epochs": "3", "seed": "1"} and run.data.metrics == {"dice": 0.5}
    assert not again.has_failed


@pytest.mark.usefixtures("no_server")
def test_repeated_epochs_are_in_mlflow_once(tmp_path):
    for first, last, resumed in ((0, 3, False), (2, 5, True)):
        tracker = MlflowTracker(tmp_path / "fold_0", "data", "run", resumed, tmp_path)
        for epoch in range(first, last):
            for key in ("loss", "dice"):
                tracker.log(key, epoch / 2, epoch)
        tracker.log_summary("final_dice", last / 10)
    client, (run,) = find_runs(tmp_path, "data")
    for key in ("loss", "dice"):
        metrics = client.get_metric_history(run.info.run_id, key)
        assert [(metric.step, metric.value) for metric in metrics] == [(e, e / 2) for e in range(5)]
    assert run.data.metrics["final_dice"] == 0.5 and not tracker.has_failed


@pytest.mark.usefixtures("no_server")
def test_a_failing_tracker_warns_once(tmp_path, capsys):
    tracker = MlflowTracker(tmp_path / "fold_0", "data", "run", False, tmp_path)
    tracker.client.delete_run(tracker.run_id)
    for epoch in range(3):
        tracker.log("dice", 0.5, epoch)
    assert capsys.readouterr().err.count("WARNING: MLflow") == 1


@pytest.mark.usefixtures("no_server")
def test_an_unusable_destination_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(UserError, match="nonsense://nowhere"):
        MlflowTracker(tmp_path / "fold_0", "data", "run", False, tmp_path)
