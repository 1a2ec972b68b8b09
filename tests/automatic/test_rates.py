"""What a training takes is read from what it left."""

from __future__ import annotations

import os
import time

import pytest

from semi_nnunet.automatic.rates import START_S, rate_from, rate_of
from semi_nnunet.benchmarking.kept import StepRate
from semi_nnunet.training.history import History
from semi_nnunet.util.errors import UserError
from tests.runs.jobs import OURS, fake_job, leave


def test_steps_are_of_the_last_epoch_and_the_rest_is_what_is_no_epoch(empty) -> None:
    job = fake_job(empty, OURS)
    leave(job, steps_per_epoch=10)
    with pytest.raises(UserError, match="left no history"):
        rate_of(job)
    history = History()
    for epoch, seconds in enumerate((9.0, 5.0)):
        history.add(epoch, {"seconds": seconds})
    history.write_csv(job.folder / "semi_history.csv")
    with pytest.raises(FileNotFoundError):
        rate_of(job)
    begun = time.time() - 100
    name = time.strftime("training_log_%Y_%m_%d_%H_%M_%S.txt", time.localtime(begun))
    job.validation.mkdir()
    for case in "ab":
        (job.validation / f"{case}.nii.gz").touch()
    summary = job.validation / "summary.json"
    summary.touch()
    os.utime(summary, (begun + 44, begun + 44))
    with pytest.raises(UserError, match="left no log"):
        rate_of(job)
    (job.folder / name).touch()
    rate = rate_of(job)
    assert rate.step == 0.5
    assert rate.besides == pytest.approx(44 - 14 + START_S, abs=1.01)
    assert rate.case == rate.besides / 2


@pytest.mark.parametrize(
    ("measured", "workers", "step"),
    [
        (0, 0, 2.0 + 0.6),  # loaded between the steps
        (0, 3, 2.0),  # beside them
        (2, 0, 2.0 + 1.2),  # what two processes did at once, one does one after the other
        (2, 2, 2.0),
        (12, 0, 2.0 + 4 * 0.6),  # more than there are cores do not load faster
    ],
)
def test_of_a_benchmark_loading_hides_behind_the_step_if_processes_do_it(measured, workers, step):
    found = StepRate("2025-01-31", 2.0, 0.6, measured, start=5.0, case=7.0)
    rate = rate_from(found, workers, cores=4, validated=3, validation_share=0.3)
    assert rate.step == pytest.approx(step + 0.1 * 2.0) and rate.case == 7.0
    assert rate.besides == pytest.approx(2 * START_S + 5.0 + 3 * 7.0)


def test_of_a_benchmark_steps_wait_for_slow_processes() -> None:
    found = StepRate("2025-01-31", 2.0, 9.0, 1, start=5.0, case=7.0)
    assert rate_from(found, 3, cores=4, validated=1, validation_share=0).step == 3.0
