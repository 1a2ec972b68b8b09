"""Steps are timed in turn, and their operations are those of the network's passes."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.benchmarking import steps
from semi_nnunet.benchmarking.steps import FLOOR, Times, count_operations, time_steps
from semi_nnunet.benchmarking.work import STOCK, Work, aside
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.timing import Seconds
from tests.ranks import PLANS, plans_with


@pytest.fixture
def work(prepared_dataset) -> Work:
    return Work(prepared_dataset().name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)


def test_operations_without_values_are_those_of_a_step_that_computes(work, make_trainer):
    with aside():
        found = count_operations(work, [BASELINE, "SemiMeanTeacherTrainer"])
    trainer = make_trainer(
        "SemiMeanTeacherTrainer", fold="all", ramp_up="constant", unlabelled_start_steps=0
    )
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    assert found["SemiMeanTeacherTrainer"] == counter.get_total_flops()
    assert found[FLOOR] == found[BASELINE] > 0
    assert found["SemiMeanTeacherTrainer"] == pytest.approx(2.33 * found[FLOOR], rel=0.01)


def test_operations_are_counted_where_steps_compute_in_bfloat16(work, prepared_dataset):
    with plans_with(prepared_dataset(), mixed_precision="bfloat16"), aside():
        found = count_operations(replace(work, plans=PLANS), [BASELINE])
        usual = count_operations(work, [BASELINE])
    assert found == usual and found[BASELINE] > 0


def test_trainers_are_timed_beside_the_floor_and_a_mistake_is_told(work, monkeypatch):
    def refuses(work: Work, name: str, **settings: object) -> object:
        if name == "SemiBCPTrainer" and work.device == "cpu":
            raise UserError("needs two patches", fix="more")
        return ready(work, name, **settings)

    ready = steps.ready
    monkeypatch.setattr(steps, "ready", refuses)
    times = time_steps(work, [BASELINE, "SemiBCPTrainer", "SemiMeanTeacherTrainer"])
    assert set(times.seconds) == {BASELINE, FLOOR, "SemiMeanTeacherTrainer"}
    assert times.refused == {"SemiBCPTrainer": "needs two patches. Fix: more"}
    assert times.seconds["SemiMeanTeacherTrainer"].median > times.seconds[FLOOR].low
    assert set(times.operations) >= {BASELINE, FLOOR, "SemiMeanTeacherTrainer"}
    assert not times.loading and times.case is not None and times.case > 0


def test_quick_times_loading_and_a_case_beside_the_steps_and_counts_nothing(work, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    names = [BASELINE, "SemiMeanTeacherTrainer", STOCK]
    times = time_steps(work, names, quick=True)
    assert set(times.loading) == set(times.starts) == set(names) and not times.operations
    assert set(times.seconds) == {*names, FLOOR} and times.case is not None
    assert times.patches == {BASELINE: 2, "SemiMeanTeacherTrainer": 4, STOCK: 2}
    assert all(0 < seconds < 60 for seconds in (*times.loading.values(), *times.starts.values()))
    assert multiprocessing.active_children() == []


def test_what_is_measured_again_replaces_why_it_was_not() -> None:
    one = Seconds(1.0, 1.0, 1.0)
    first = Times({"A": one}, starts={"A": 2.0}, case=3.0, refused={"B": "large", "C": "large"})
    both = first.with_those_of(Times({"B": one}, loading={"B": 0.5}, starts={"B": 4.0}))
    assert both.seconds == {"A": one, "B": one} and both.starts == {"A": 2.0, "B": 4.0}
    assert both.refused == {"C": "large"} and both.case == 3.0 and both.loading == {"B": 0.5}
    assert both.with_those_of(Times(refused={"C": "killed"})).refused == {"C": "killed"}
