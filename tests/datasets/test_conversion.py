"""A conversion writes all or nothing, and is not repeated."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase, write_conversion
from semi_nnunet.util.errors import UserError
from tests.datasets.converting import counts
from tests.forking import ended_process

Usage = namedtuple("Usage", ["free"])


def full_disk(path: Path) -> Usage:
    return Usage(free=1000)


def write_text(text: str, target: Path) -> None:
    if text == "full":  # also in this process
        shutil.disk_usage = full_disk
        raise RuntimeError("ITK ERROR: could not write")
    if text == "bad":
        raise RuntimeError("ITK ERROR: the file is incomplete")
    target.write_text(text, encoding="utf-8")


def conversion(*images: str) -> Conversion:
    cases = [
        ConvertedCase(f"case{i}", part, partial(write_text, image), label, f"source{i}")
        for i, image in enumerate(images)
        for part in [("Tr", "Un", "Val", "Ts")[i % 4]]
        for label in [None if part == "Un" else partial(write_text, "label")]
    ]
    return Conversion("Toy", ("CT",), ("organ",), cases, "authors", [["case0"]])


def test_every_part_has_its_folders(tmp_path: Path) -> None:
    target = tmp_path / "Dataset001_Toy"
    assert write_conversion(conversion(*"abcd"), target, {"converter": "toy"}, 1)
    assert counts(target) == {
        **{"imagesTr": 1, "labelsTr": 1, "imagesUn": 1, "imagesVal": 1, "labelsVal": 1},
        **{"imagesTs": 1, "labelsTs": 1},
    }
    assert (target / "imagesUn/case1_0000.nii.gz").read_text() == "b"
    description = json.loads((target / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "organ": 1}
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == 1
    assert json.loads((target / "labelled_subsets.json").read_text()) == {"1": ["case0"]}


def test_the_same_conversion_is_done_once(tmp_path: Path) -> None:
    target = tmp_path / "Dataset001_Toy"
    assert write_conversion(conversion("a"), target, {"seed": 0}, 1)
    assert not write_conversion(conversion("other"), target, {"seed": 0}, 1)
    for changed, record in ((conversion("a"), {"seed": 1}), (conversion("a", "b"), {"seed": 0})):
        with pytest.raises(UserError, match="was not made"):
            write_conversion(changed, target, record, 1)
    assert (target / "imagesTr/case0_0000.nii.gz").read_text() == "a"


def test_all_broken_files_are_reported_and_nothing_is_written(tmp_path: Path) -> None:
    target = tmp_path / "Dataset001_Toy"
    with pytest.raises(UserError) as error:
        write_conversion(conversion("bad", "b", "bad"), target, {}, 1)
    assert [problem.where for problem in error.value.problems] == ["source0", "source2"]
    assert "incomplete" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_one_case_are_reported(tmp_path: Path) -> None:
    twice = conversion("a", "b")
    cases = [replace(case, name="benign_001") for case in twice.cases]
    with pytest.raises(UserError) as error:
        write_conversion(replace(twice, cases=cases), tmp_path / "Dataset001_Toy", {}, 1)
    assert [problem.where for problem in error.value.problems] == ["source0", "source1"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_not_reported_as_broken_files(tmp_path, monkeypatch, processes) -> None:
    target, cases = tmp_path / "Dataset001_Toy", conversion("full", "full", "full", "full")
    monkeypatch.setattr(shutil, "disk_usage", full_disk)
    with pytest.raises(UserError, match="is full: 0 MiB are free") as error:
        write_conversion(cases, target, {}, processes)
    assert "source0" not in str(error.value) and not list(tmp_path.iterdir())


def test_leftovers_of_an_interrupted_conversion_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "Dataset001_Toy"
    aside = tmp_path / f".Dataset001_Toy.{os.uname().nodename}.{ended_process()}.tmp"
    leftover = aside / "imagesTr/old_0000.nii.gz"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("")
    write_conversion(conversion("a"), target, {}, 1)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert counts(target)["imagesTr"] == 1


def test_processes_write_the_same(tmp_path: Path) -> None:
    target = tmp_path / "Dataset001_Toy"
    write_conversion(conversion(*"abcd"), target, {}, 2)
    assert counts(target)["imagesTs"] == 1
