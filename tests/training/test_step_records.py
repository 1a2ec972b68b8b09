"""The records of steps, and their means."""

import numpy as np
import pytest
import torch

from semi_nnunet.training.step_records import StepRecords


def test_means_equal_numpys_for_tensors_and_numbers_alike():
    records = StepRecords()
    values = np.random.default_rng(0).normal(size=50)
    for step, value in enumerate(values):
        records.add("mixed", torch.tensor(value) if step % 3 else float(value))
        records.add("tensors", torch.tensor([[value]], dtype=torch.float16))
        records.add("numbers", int(step))
    means = records.means()
    assert means["mixed"] == pytest.approx(values.mean(), abs=1e-6)
    assert means["tensors"] == pytest.approx(values.astype(np.float16).astype(float).mean())
    assert means["numbers"] == 24.5
    assert all(type(value) is float for value in means.values())


def test_means_forget_what_they_reported():
    records = StepRecords()
    records.add("loss", 1.0)
    assert records.means() == {"loss": 1.0}
    assert records.means() == {}
    records.add("loss", 3.0)
    assert records.means() == {"loss": 3.0}


def test_steps_without_a_value_do_not_count():
    records = StepRecords()
    for value in (1.0, torch.tensor(torch.nan), torch.tensor(2.0)):
        records.add("some", value)
        records.add("none", torch.nan)
    means = records.means()
    assert means["some"] == 1.5 and np.isnan(means["none"])


def test_records_keep_no_graph():
    records = StepRecords()
    weight = torch.ones((), requires_grad=True)
    records.add("loss", weight * 2)
    assert not records._values["loss"][0].requires_grad
    assert records.means() == {"loss": 2.0}
