"""What was measured is found again under the same conditions, and under no others."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from semi_nnunet.benchmarking import kept
from semi_nnunet.benchmarking.kept import Kept, StepRate
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.runs.conftest import empty  # noqa: F401

RATE = StepRate("2025-01-31", step=0.5, loading=0.1, workers=2, start=3.0, case=8.0)
WORK = Work("Dataset001_A", "2d", "mine", "cpu", threads=2, rounds=3)


@pytest.fixture
def folders(empty):  # noqa: F811
    """With plans, and a rate that was measured with them."""
    plans = {"plans_name": "mine", "semi": {"epochs": 10}, "configurations": {"2d": {"patch": 1}}}
    for name in ("mine", "other"):
        write_json(empty.preprocessed / f"{name}.json", plans | {"plans_name": name})
    Kept.of(empty, WORK).keep({BASELINE: RATE})
    return empty


def change(folders, **content) -> None:
    path = folders.preprocessed / "mine.json"
    write_json(path, read_json(path) | content)


def test_it_is_found_again_and_others_are_added(folders) -> None:
    found = Kept.of(folders, WORK)
    assert found.rates == {BASELINE: RATE} and found.path.is_relative_to(folders.results)
    later = replace(RATE, date="2025-02-01", step=0.7)
    found.keep({"SemiCPSTrainer": later})
    both = Kept.of(folders, WORK)
    assert both.rates == {BASELINE: RATE, "SemiCPSTrainer": later}
    assert both.dates(both.rates) == "2025-01-31, 2025-02-01"
    both.keep({BASELINE: later})
    assert Kept.of(folders, WORK).rates[BASELINE] == later


def test_names_lengths_rounds_and_where_plans_come_from_change_no_step(folders) -> None:
    assert Kept.of(folders, replace(WORK, plans="other", rounds=9)).rates == {BASELINE: RATE}
    change(folders, semi={"epochs": 7, "steps_per_epoch": 9}, semi_planned={"from": "any"})
    assert Kept.of(folders, WORK).rates == {BASELINE: RATE}


@pytest.mark.parametrize(
    "content",
    [
        {"configurations": {"2d": {"patch": 2}}},
        {"semi": {"labelled_batch_size": 3}},
        {"semi": {"SemiCPSTrainer": {"2d": {"unlabelled_batch_size": 3}}}},
    ],
)
def test_other_plans_of_the_same_name_are_measured_anew(content, folders) -> None:
    change(folders, **content)
    assert not Kept.of(folders, WORK).rates


@pytest.mark.parametrize(
    "changed", [{"configuration": "3d_fullres"}, {"threads": 1}, {"device": "meta"}]
)
def test_another_configuration_device_or_number_of_threads_is_measured_anew(changed, folders):
    assert not Kept.of(folders, replace(WORK, **changed)).rates


@pytest.mark.parametrize("package", ["torch", "nnunetv2", "semi_nnunet"])
def test_another_version_is_measured_anew(package, folders, monkeypatch) -> None:
    before = kept.version
    changed = lambda name: "0.0.1" if name == package else before(name)  # noqa: E731
    monkeypatch.setattr(kept, "version", changed)
    assert not Kept.of(folders, WORK).rates


@pytest.mark.parametrize(("what", "value"), [("processor_name", "another"), ("usable_cores", 77)])
def test_another_machine_is_measured_anew(what, value, folders, monkeypatch) -> None:
    monkeypatch.setattr(kept, what, lambda: value)
    assert not Kept.of(folders, WORK).rates


def test_compiled_networks_are_measured_anew(folders, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_compile", "another")
    assert not Kept.of(folders, WORK).rates


def test_a_file_that_was_renamed_to_other_conditions_is_not_believed(folders) -> None:
    other = replace(WORK, threads=7)
    Kept.of(folders, WORK).path.rename(Kept.of(folders, other).path)
    assert not Kept.of(folders, other).rates
    assert json.loads(Kept.of(folders, other).path.read_text())["rates"]


@pytest.mark.parametrize("content", [[], {}, {"conditions": {}, "rates": {BASELINE: {"step": 1}}}])
def test_a_file_of_another_content_is_named(content, folders) -> None:
    write_json(Kept.of(folders, WORK).path, content)
    with pytest.raises(UserError, match=r"must be what semi_nnunet benchmark wrote.*remove it"):
        Kept.of(folders, WORK)
