"""Records of inputs: what counts as changed, and what a change costs to notice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import semi_nnunet.util.provenance as provenance
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.provenance import find_changed, recorded


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path | str]:
    """Two files of equal size and time, and a text."""
    files = {name: tmp_path / name for name in ("one", "two")}
    for name, path in files.items():
        path.write_text(name)
        os.utime(path, (1e9, 1e9))
    return {**files, "classes": "liver"}


@pytest.fixture
def record(tmp_path: Path, inputs: dict[str, Path | str]) -> Path:
    path = tmp_path / "made_from.json"
    with recorded(path, inputs):
        pass
    return path


def test_unchanged_files_are_not_read(record, inputs, monkeypatch):
    for name in ("sha256_of_file", "sha256_of_version"):
        monkeypatch.setattr(provenance, name, lambda path: pytest.fail("read"))
    assert find_changed(record, inputs) == []


def test_files_that_were_touched_or_copied_are_unchanged(record, inputs):
    inputs["one"].touch()
    copy = inputs["two"].with_name("copy")
    copy.write_bytes(inputs["two"].read_bytes())
    assert find_changed(record, {**inputs, "two": copy}) == []


def test_a_change_that_keeps_size_and_time_is_noticed(record, inputs):
    inputs["one"].write_text("eno")
    os.utime(inputs["one"], (1e9, 1e9))
    assert find_changed(record, inputs) == ["one"]


def test_files_that_exchange_their_names_are_noticed(record, inputs, tmp_path):
    inputs["one"].rename(tmp_path / "aside")
    inputs["two"].rename(inputs["one"])
    (tmp_path / "aside").rename(inputs["two"])
    assert find_changed(record, inputs) == ["one", "two"]


def test_new_lost_and_other_inputs_are_named(record, inputs, tmp_path):
    inputs["one"].unlink()
    now = {**inputs, "three": tmp_path / "three", "classes": "spleen"}
    del now["two"]
    assert find_changed(record, now) == ["two", "one", "classes", "three"]


def test_an_input_that_changes_meanwhile_leaves_no_record(record, inputs):
    with pytest.raises(UserError) as caught, recorded(record, inputs):
        inputs["two"].write_text("half")
    assert [problem.where for problem in caught.value.problems] == [str(inputs["two"])]
    assert not record.exists()


def test_a_failure_leaves_no_record_of_an_earlier_result(record, inputs):
    with pytest.raises(KeyError), recorded(record, inputs):
        raise KeyError
    assert not record.exists()


def test_a_cut_record_counts_as_a_change_of_everything(record, inputs):
    content = record.read_bytes()
    for length in range(len(content.rstrip())):
        record.write_bytes(content[:length])
        assert find_changed(record, inputs), length
    record.write_bytes(content)
    assert find_changed(record, inputs) == []
