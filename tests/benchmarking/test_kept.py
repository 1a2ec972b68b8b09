"""Stored rates are found under the same conditions only."""

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
    """Folders with plans, and a stored rate."""
    plans = {"plans_name": "mine", "semi": {"epochs": 10}, "configurations": {"2d": {"patch": 1}}}
    for name in ("mine", "other"):
        write_json(empty.preprocessed / f"{name}.json", plans | {"plans_name": name})
    Kept.of(empty, WORK).keep({BASELINE: RATE})
    return empty


def change(folders, **content) -> None:
    path = folders.preprocessed / "mine.json"
    write_json(path, read_json(path) | content)


def test_stored_rates_are_found_and_others_are_added(folders) -> None:
    stored = Kept.of(folders, WORK)
    assert stored.rates == {BASELINE: RATE} and stored.path.is_relative_to(folders.results)
    later = replace(RATE, date="2025-02-01", step=0.7)
    stored.keep({"SemiCPSTrainer": later})
    stored = Kept.of(folders, WORK)
    assert stored.rates == {BASELINE: RATE, "SemiCPSTrainer": later}
    assert stored.dates(stored.rates) == "2025-01-31, 2025-02-01"
    stored.keep({BASELINE: later})
    assert Kept.of(folders, WORK).rates[BASELINE] == later


def test_rates_do_not_depend_on_the_name_origin_or_length_of_a_training(folders) -> None:
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
def test_changed_plans_are_measured_again(content, folders) -> None:
    change(folders, **content)
    assert not Kept.of(folders, WORK).rates


@pytest.mark.parametrize(
    "changed", [{"configuration": "3d_fullres"}, {"threads": 1}, {"device": "meta"}]
)
def test_another_configuration_device_or_number_of_threads_is_measured_again(changed, folders):
    assert not Kept.of(folders, replace(WORK, **changed)).rates


@pytest.mark.parametrize("package", ["torch", "nnunetv2", "semi_nnunet"])
def test_another_version_is_measured_again(package, folders, monkeypatch) -> None:
    installed = {name: kept.version(name) for name in ("torch", "nnunetv2", "semi_nnunet")}
    monkeypatch.setattr(kept, "version", {**installed, package: "0.0.1"}.__getitem__)
    assert not Kept.of(folders, WORK).rates


@pytest.mark.parametrize(
    ("function", "value"), [("processor_name", "another"), ("usable_cores", 77)]
)
def test_another_machine_is_measured_again(function, value, folders, monkeypatch) -> None:
    monkeypatch.setattr(kept, function, lambda: value)
    assert not Kept.of(folders, WORK).rates


def test_compiled_networks_are_measured_again(folders, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_compile", "another")
    assert not Kept.of(folders, WORK).rates


def test_a_file_with_the_name_of_other_conditions_is_ignored(folders) -> None:
    other = replace(WORK, threads=7)
    Kept.of(folders, WORK).path.rename(Kept.of(folders, other).path)
    assert not Kept.of(folders, other).rates
    assert json.loads(Kept.of(folders, other).path.read_text())["rates"]


@pytest.mark.parametrize("content", [[], {}, {"conditions": {}, "rates": {BASELINE: {"step": 1}}}])
def test_a_file_with_another_content_is_reported(content, folders) -> None:
    write_json(Kept.of(folders, WORK).path, content)
    with pytest.raises(UserError, match="semi_nnunet benchmark"):
        Kept.of(folders, WORK)
