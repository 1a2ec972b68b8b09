"""What a training takes is read from what it left."""

from __future__ import annotations

import os
import time

import pytest

from semi_nnunet.automatic.rates import START_S, rate_of
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
