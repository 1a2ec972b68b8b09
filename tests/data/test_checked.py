"""Only changed files are decoded again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semi_nnunet.raw.description import RawDataset
from semi_nnunet.verify import integrity
from semi_nnunet.verify.integrity import check_dataset
from semi_nnunet.verify.reports import (
    CaseReport,
    KnownReports,
    compute_report_source,
    find_changed_cases,
    read_reports,
    record_files,
    write_reports,
)
from tests.data.raw_datasets import make, make_tif, truncate, voxels, write


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The cases that are decoded, as they come."""
    cases: list[str] = []
    report = integrity._report

    def noting(rules, case):
        cases.append(case.case)
        return report(rules, case)

    monkeypatch.setattr(integrity, "_report", noting)
    return cases


def folder(tmp_path: Path) -> Path:
    """Of the raw data set."""
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def known_of(root: Path, file: Path) -> tuple[list[CaseReport], KnownReports]:
    """The reports of a data set, and the same from the file that they are written to."""
    reports = check_dataset(root, 1, False)
    write_reports(file, reports)
    return reports, read_reports(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_unchanged_cases_are_not_decoded_again(tmp_path, decoded, ending) -> None:
    root = make(folder(tmp_path), ending, channels=2)
    reports, known = known_of(root, tmp_path / "known")
    assert sorted(decoded) == ["a", "b", "t", "u", "v"] and len(known) == 5
    decoded.clear()
    assert check_dataset(root, 1, False, known) == reports and decoded == []


def test_a_changed_byte_is_noticed_despite_equal_size_and_time(tmp_path, decoded) -> None:
    root = make(folder(tmp_path), ".nii")
    _, known = known_of(root, tmp_path / "known")
    file = root / "imagesUn" / "u_0000.nii"
    times, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    decoded.clear()
    *_, u, _, _ = check_dataset(root, 1, False, known)
    assert decoded == ["u"] and u.content_hash != known["unlabelled", "u"].content_hash


def test_damage_after_the_first_check_is_reported(tmp_path, decoded) -> None:
    root = make(folder(tmp_path), ".nii.gz")
    _, known = known_of(root, tmp_path / "known")
    truncate(root / "imagesUn" / "v_0000.nii.gz", 0.5)
    (root / "imagesTs" / "t_0000.nii.gz").unlink()
    reports = {report.case: report for report in check_dataset(root, 1, False, known)}
    assert "truncated" in str(reports["v"].problems) and "t" not in reports


def test_changed_rules_invalidate_all_reports(tmp_path, decoded) -> None:
    root = make(folder(tmp_path), ".nii.gz")
    _, known = known_of(root, tmp_path / "known")
    description = root / "dataset.json"
    text = description.read_text(encoding="utf-8")
    description.write_text(text.replace('"labels": {', '"labels": {"more": 2, '), encoding="utf-8")
    decoded.clear()
    check_dataset(root, 1, False, known)
    assert len(decoded) == 5


def test_cases_with_problems_are_not_stored(tmp_path) -> None:
    root = make(folder(tmp_path), ".nii.gz")
    write(root / "imagesUn" / "u_0000.nii.gz", 0 * voxels(1))
    _, known = known_of(root, tmp_path / "known")
    assert ("unlabelled", "u") not in known and len(known) == 4


def test_formats_that_may_refer_to_another_file_are_decoded_again(tmp_path) -> None:
    root = make_tif(folder(tmp_path), (9, 8))
    known = known_of(root, tmp_path / "known")[1]
    assert known and all(report.source == "" for report in known.values())
    for paths in ([str(root / "dataset.json")], ["absent.nii"]):
        assert compute_report_source(paths, record_files(paths), "") == ""


@pytest.mark.parametrize("names", [["imagesTr/a"], ["labelsTr/a"], ["imagesUn/u"]])
def test_a_corrected_spacing_of_a_tiff_is_a_change(tmp_path, names) -> None:
    root = make_tif(folder(tmp_path), (7, 9, 8))
    reports = {(report.subset, report.case): report for report in check_dataset(root, 1, False)}
    cases = RawDataset.of(root).cases
    assert find_changed_cases(cases, reports, ())[0] == []
    (root / f"{names[0]}.json").write_text('{"spacing": [5, 1, 1]}')
    assert find_changed_cases(cases, reports, ())[0] == [names[0][-1]]


def test_torn_and_foreign_lines_are_skipped(tmp_path) -> None:
    root = make(folder(tmp_path), ".nii.gz")
    reports, _ = known_of(root, file := tmp_path / "known")
    content = file.read_bytes()
    file.write_bytes(content[:-20] + b"\n[1]\n{}\n3\n\xff\xfe\n" + b"[" * 100_000 + b"\n")
    known = read_reports(file)
    assert len(known) == 4 and check_dataset(root, 1, False, known) == reports
    assert read_reports(tmp_path / "absent") == {}
