"""What a training takes is read from what it left."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pytest

from semi_nnunet.automatic import rates
from semi_nnunet.automatic.commands import PLANS, ROUNDS, AutoCommands
from semi_nnunet.automatic.rates import START_S, estimate_rate, read_rate, read_start_time
from semi_nnunet.benchmarking.kept import Kept, StepRate
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.launching import JobLauncher
from semi_nnunet.runs.local import Resources
from semi_nnunet.training.history import History
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.automatic.test_cases import cases_of
from tests.runs.jobs import OURS, fake_job, leave


def test_the_step_is_that_of_the_last_epoch_and_the_rest_is_outside_epochs(empty) -> None:
    job = fake_job(empty, OURS)
    leave(job, steps_per_epoch=10)
    with pytest.raises(UserError, match="left no history"):
        read_rate(job)
    history = History()
    for epoch, seconds in enumerate((9.0, 5.0)):
        history.add(epoch, {"seconds": seconds})
    history.write_csv(job.folder / "semi_history.csv")
    with pytest.raises(FileNotFoundError):
        read_rate(job)
    begun = time.time() - 100
    name = time.strftime("training_log_%Y_%m_%d_%H_%M_%S.txt", time.localtime(begun))
    job.validation.mkdir()
    for case in "ab":
        (job.validation / f"{case}.nii.gz").write_text("x")
    summary = job.validation / "summary.json"
    summary.write_text("x")
    os.utime(summary, (begun + 44, begun + 44))
    with pytest.raises(UserError, match="left no log"):
        read_rate(job)
    (job.folder / name).write_text("x")
    rate = read_rate(job)
    assert rate.step == 0.5
    assert rate.besides == pytest.approx(44 - 14 + START_S, abs=1.01)
    assert rate.case == rate.besides / 2


def test_the_last_log_is_the_latest_although_its_day_has_two_digits(empty) -> None:
    job = fake_job(empty, OURS)
    job.folder.mkdir(parents=True)
    for day in (9, 10):
        (job.folder / f"training_log_2026_3_{day}_08_00_00.txt").touch()
    assert time.localtime(read_start_time(job)).tm_mday == 10


@pytest.mark.parametrize(
    ("measured", "workers", "step"),
    [
        (0, 0, 2.0 + 0.6),  # loaded between the steps
        (0, 3, 2.0),  # meanwhile
        (2, 0, 2.0 + 1.2),  # what two processes did at once, one does one after the other
        (2, 2, 2.0),
        (12, 0, 2.0 + 4 * 0.6),  # more than there are cores do not load faster
    ],
)
def test_of_a_benchmark_loading_hides_behind_the_step_if_processes_do_it(measured, workers, step):
    rate = StepRate("2025-01-31", 2.0, 0.6, measured, start=5.0, case=7.0)
    rate = estimate_rate(rate, workers, cores=4, validated=3, validation_share=0.3)
    assert rate.step == pytest.approx(step + 0.1 * 2.0) and rate.case == 7.0
    assert rate.besides == pytest.approx(2 * START_S + 5.0 + 3 * 7.0)


def test_of_a_benchmark_steps_wait_for_slow_processes() -> None:
    rate = StepRate("2025-01-31", 2.0, 9.0, 1, start=5.0, case=7.0)
    assert estimate_rate(rate, 3, cores=4, validated=1, validation_share=0).step == 3.0


TRAINERS = ("SemiBaselineTrainer", "SemiCPSTrainer")


@pytest.fixture
def planned(empty: Folders) -> AutoCommands:
    """Of a data set with plans, whose benchmarks :func:`timed` stands for."""
    semi = {"steps_per_epoch": 50, "validation_steps_per_epoch": 5}
    plans = {"plans_name": PLANS, "configurations": {"2d": {}}, "semi": semi}
    write_json(empty.preprocessed / f"{PLANS}.json", plans)
    return AutoCommands(empty, "2d", JobLauncher(), "cpu", empty.raw)


def timed(
    commands: AutoCommands,
    monkeypatch: pytest.MonkeyPatch,
    trainers: Sequence[str] = TRAINERS,
    threads: int = 2,
    keeps: bool = True,
) -> list[str]:
    """Measure rates with a benchmark that stores one for each trainer; return what it timed."""
    requested: list[str] = []

    def stages(stages):
        for _, words in stages:
            assert os.environ["nnUNet_n_proc_DA"] == "0"  # as that of trainings on a CPU
            names = [*words[words.index("-tr") + 1 :]]
            requested.extend(names)
            work = Work(commands.folders.raw.name, "2d", PLANS, "cpu", threads, ROUNDS)
            rate = StepRate("2025-01-31", 2.0, 0.5, 0, 4.0, 6.0)
            Kept.of(commands.folders, work).keep(dict.fromkeys(names, rate) if keeps else {})

    monkeypatch.setattr(rates, "run_stages", stages)
    rate = rates.measure_rates_locally(
        commands, trainers, Resources("cpu", (), 1, threads), cases_of()
    )
    assert {*rate} == {*trainers}
    assert rate["SemiCPSTrainer"].step == 2.5 + 0.1 * 2.0 / 3
    return requested


def test_only_trainers_without_a_benchmark_are_timed(planned, monkeypatch, capsys) -> None:
    assert timed(planned, monkeypatch) == [*TRAINERS]
    assert "rates of" not in capsys.readouterr().out
    assert timed(planned, monkeypatch) == []
    output = capsys.readouterr().out
    assert "rates of semi_nnunet benchmark of 2025-01-31: SemiBaselineTrainer, SemiCPS" in output
    more = (*TRAINERS, "SemiMeanTeacherTrainer")
    assert timed(planned, monkeypatch, more) == ["SemiMeanTeacherTrainer"]


def test_rates_of_other_plans_and_of_other_threads_are_not_taken(planned, monkeypatch) -> None:
    assert timed(planned, monkeypatch)
    assert timed(planned, monkeypatch, threads=1)
    path = planned.folders.preprocessed / f"{PLANS}.json"
    write_json(path, read_json(path) | {"configurations": {"2d": {"batch_size": 3}}})
    assert timed(planned, monkeypatch) == [*TRAINERS]


def test_rates_that_cannot_be_stored_are_reported(planned, monkeypatch) -> None:
    with pytest.raises(UserError, match="SemiCPSTrainer"):
        timed(planned, monkeypatch, keeps=False)


def test_elsewhere_they_are_known_when_all_short_trainings_are_over(planned, monkeypatch) -> None:
    requested: list[tuple[str, ...]] = []
    monkeypatch.setattr(rates, "run_stages", lambda stages: requested.extend(w for _, w in stages))
    assert rates.measure_rates_on_cluster(planned, TRAINERS, cases_of()) is None
    plan, train = requested
    assert (plan[1], train[1]) == ("plan", "crossval") and "0" in train
    monkeypatch.setattr(rates.Job, "is_done", True)
    monkeypatch.setattr(rates, "read_rate", lambda job: (job.trainer, job.fold))
    alone = cases_of(folds=0, labelled=1)
    assert rates.measure_rates_on_cluster(planned, TRAINERS, alone) == {
        n: (n, "all") for n in TRAINERS
    }
