"""Steps, memory, loading and predictions of trainers are measured."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.benchmarking import steps
from semi_nnunet.benchmarking.steps import (
    FLOOR,
    StepTimes,
    count_operations,
    find_median_case,
    measure_batch_seconds,
    measure_case_seconds,
    measure_memory_and_loading,
    measure_step_memory,
    time_steps,
)
from semi_nnunet.benchmarking.work import STOCK, Work, silent_scratch_results, start_trainer
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.timing import Seconds
from tests.ranks import PLANS, plans_with


@pytest.fixture
def work(prepared_dataset) -> Work:
    return Work(prepared_dataset().name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)


def test_operations_counted_without_values_equal_those_of_a_real_step(work, make_trainer):
    with silent_scratch_results():
        operations = count_operations(work, [BASELINE, "SemiMeanTeacherTrainer"])
    trainer = make_trainer(
        "SemiMeanTeacherTrainer", fold="all", ramp_up="constant", unlabelled_start_steps=0
    )
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    assert operations["SemiMeanTeacherTrainer"] == counter.get_total_flops()
    assert operations[FLOOR] == operations[BASELINE] > 0
    assert operations["SemiMeanTeacherTrainer"] == pytest.approx(2.33 * operations[FLOOR], rel=0.01)


def test_steps_that_differ_in_turn_are_averaged_and_within_the_goal(work, monkeypatch):
    """Passes of a step: labelled patches with boxes 3, teacher 1, half of the consistency's 3."""
    name, steps_of = "SemiUnifiedTrainer", dict[str, list[int]]()
    with silent_scratch_results():
        operations = count_operations(work, [BASELINE, name])
    assert operations[name] == pytest.approx(5.5 / 3 * operations[BASELINE], rel=0.01)
    run_cycle = steps.run_cycle

    def count_steps(trainer, batch):
        first = trainer.step
        run_cycle(trainer, batch)
        steps_of.setdefault(type(trainer).__name__, []).append(trainer.step - first)

    monkeypatch.setattr(steps, "run_cycle", count_steps)
    time_steps(work, [BASELINE, name], quick=True)
    assert {trainer: set(counts) for trainer, counts in steps_of.items()} == {
        BASELINE: {1},
        name: {2},
    }


def test_operations_are_counted_where_steps_compute_in_bfloat16(work, prepared_dataset):
    with plans_with(prepared_dataset(), mixed_precision="bfloat16"), silent_scratch_results():
        operations = count_operations(replace(work, plans=PLANS), [BASELINE])
        expected = count_operations(work, [BASELINE])
    assert operations == expected and operations[BASELINE] > 0


def test_trainers_are_timed_with_the_floor_and_mistakes_are_reported(work, monkeypatch):
    def fail_for_one(work: Work, name: str, **settings: object) -> object:
        if name == "SemiBCPTrainer" and work.device == "cpu":
            raise UserError("needs two patches", fix="more")
        return start_trainer(work, name, **settings)

    monkeypatch.setattr(steps, "start_trainer", fail_for_one)
    times = time_steps(work, [BASELINE, "SemiBCPTrainer", "SemiMeanTeacherTrainer"])
    assert set(times.seconds) == {BASELINE, FLOOR, "SemiMeanTeacherTrainer"}
    assert [*times.refused] == ["SemiBCPTrainer"]
    assert "two patches" in times.refused["SemiBCPTrainer"]
    assert times.seconds["SemiMeanTeacherTrainer"].median > times.seconds[FLOOR].low
    assert set(times.operations) >= {BASELINE, FLOOR, "SemiMeanTeacherTrainer"}
    assert not times.loading and times.case is not None and times.case > 0


def test_a_quick_benchmark_also_times_loading_and_counts_no_operations(work, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    names = [BASELINE, "SemiMeanTeacherTrainer", STOCK]
    times = time_steps(work, names, quick=True)
    assert set(times.loading) == set(times.starts) == set(names) and not times.operations
    assert set(times.seconds) == {*names, FLOOR} and times.case is not None
    assert times.patches == {BASELINE: 2, "SemiMeanTeacherTrainer": 4, STOCK: 2}
    assert all(0 < seconds < 60 for seconds in (*times.loading.values(), *times.starts.values()))
    assert multiprocessing.active_children() == []


def test_later_measurements_replace_earlier_refusals() -> None:
    second = Seconds(1.0, 1.0, 1.0)
    first = StepTimes(
        {"A": second}, starts={"A": 2.0}, case=3.0, refused={"B": "large", "C": "large"}
    )
    merged = first.updated(StepTimes({"B": second}, loading={"B": 0.5}, starts={"B": 4.0}))
    assert merged.seconds == {"A": second, "B": second} and merged.starts == {"A": 2.0, "B": 4.0}
    assert merged.refused == {"C": "large"} and merged.case == 3.0 and merged.loading == {"B": 0.5}
    assert merged.updated(StepTimes(refused={"C": "killed"})).refused == {"C": "killed"}


# ---- memory and loading ----


def measure_peak_of_200_mib() -> float | None:
    """Measure a step in a process that has not freed memory, which a step would use again."""
    initial = np.ones(100 * steps.MIB, np.uint8)  # does not count

    def train_step(batch: int) -> None:
        first = np.ones(150 * steps.MIB, np.uint8)
        del first
        np.ones(200 * steps.MIB, np.uint8)

    trainer = SimpleNamespace(
        dataloader_train=iter([0]), device=torch.device("cpu"), train_step=train_step
    )
    return measure_step_memory(trainer) if len(initial) else None


@pytest.mark.skipif(not steps.STATUS.is_file(), reason="the system reports no peak")
def test_the_memory_of_a_step_is_its_peak_above_the_initial_level() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(measure_peak_of_200_mib).result() == pytest.approx(200, abs=30)


def test_batches_in_stock_do_not_count(monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")

    def loader():
        for number in range(100):
            if number >= 5:
                time.sleep(0.01)
            yield number

    seconds = measure_batch_seconds(loader())
    assert 0.01 <= seconds < 0.03


def test_memory_and_loading_are_measured(work, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    result = measure_memory_and_loading(work, "SemiMeanTeacherTrainer")
    assert result.refused is None and result.loading and 0 < result.loading < 5


def test_a_mistake_is_reported(work, monkeypatch) -> None:
    def fail(work: Work, name: str) -> None:
        raise UserError("no images", fix="some")

    monkeypatch.setattr(steps, "start_trainer", fail)
    assert "no images" in measure_memory_and_loading(work, "any").refused


# ---- prediction of a case ----


@pytest.fixture
def trainer(work, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    with silent_scratch_results():
        yield start_trainer(work, BASELINE)


def test_as_many_passes_are_counted_as_nnunet_makes(trainer, monkeypatch) -> None:
    """nnU-Net's sliding window calls the network as often."""
    calls = []
    shape, _ = find_median_case(trainer)
    predictor = trainer.predictor.nnunet_predictor(trainer.bare_network, mirror=True)
    trainer.set_deep_supervision_enabled(False)
    trainer.bare_network.register_forward_hook(lambda *_: calls.append(1))
    predictor.predict_sliding_window_return_logits(torch.zeros((1, *shape)))
    passes = len(calls)
    monkeypatch.setattr(steps, "in_turn", lambda *_, **__: {"pass": Seconds(2.0, 2.0, 2.0)})
    monkeypatch.setattr(steps, "measure_export_seconds", lambda *_: 100.0)
    assert measure_case_seconds(trainer) == 2.0 * passes + 100.0 > 104.0


def test_measuring_a_case_does_not_change_the_mode_of_the_network(trainer) -> None:
    training = trainer.bare_network.training
    assert 0 < measure_case_seconds(trainer) < 60 and trainer.bare_network.training == training


def test_the_case_is_of_median_size(trainer, monkeypatch) -> None:
    sizes = {"a": 90, "b": 10, "c": 50}

    class Cases:
        def __init__(self, folder, names):
            assert set(names) <= set(sizes)

        def load_case(self, name):
            return np.zeros((1, 1, sizes[name], 2)), None, None, {"name": name}

    monkeypatch.setattr(trainer, "dataset_class", Cases)
    monkeypatch.setattr(trainer, "labelled_identifiers", lambda: sorted(sizes))
    assert find_median_case(trainer) == ([1, 50, 2], {"name": "c"})
