"""M&Ms: labelled frames of 4-D studies, three vendors for training and one for the test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.raw.domains import DomainRule
from tests.datasets.converting import (
    Converter,
    cases,
    counts,
    patients,
    read,
    subsets,
    write_volume,
)

SHAPE = (5, 2, 4, 6)  # frames, slices, rows, columns
NUMBERS = {"A": 3, "B": 21, "C": 3, "D": 2}
TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root, seed = tmp_path / "MnMs", 0
    rows = [",External code,VendorName,Vendor,Centre,Age,ED,ES"]
    for vendor, number in NUMBERS.items():
        for i in range(number):
            code, seed = f"{vendor}{i:02d}XY0", seed + 1
            folders = ("Training/Labeled", "Validation", "Testing")
            folder = root / folders[i % 3] / code
            write_volume(folder / f"{code}_sa.nii.gz", seed, shape=SHAPE)
            write_volume(folder / f"{code}_sa_gt.nii.gz", labels=(0, 1, 2, 3), shape=SHAPE)
            rows.append(f"{seed},{code},Some,{vendor},1,50,0,3")
    write_volume(root / "Training/Unlabeled/C99XY0/C99XY0_sa.nii.gz", 99, shape=SHAPE)
    rows.append("99,C99XY0,GE,C,4,50,1,2")
    (root / TABLE).write_text("\n".join(rows) + "\n")
    return root


def test_one_vendor_is_for_the_test(source: Path, convert: Converter) -> None:
    dataset = convert("mnms", source, "--target", "A")
    assert dataset.name == "Dataset700_MnMs_BCD2A"
    assert counts(dataset) == {"imagesTr": 52, "labelsTr": 52, "imagesTs": 6, "labelsTs": 6}
    assert cases(dataset / "imagesTs") == {
        f"A_A{i:02d}XY0_{phase}" for i in range(3) for phase in ("ED", "ES")
    }
    assert patients(dataset, "Ts") == {f"A_A{i:02d}XY0" for i in range(3)}
    rule = DomainRule.of(json.loads((dataset / "dataset.json").read_text()))
    assert rule is not None and rule.domain_of("A_A00XY0_ED") == "A"
    assert not any("99XY0" in case for case in cases(dataset / "imagesTr"))


def test_two_and_five_percent_of_each_vendor_are_labelled(source: Path, convert: Converter) -> None:
    dataset = convert("mnms", source, "--target", "A")
    lists = subsets(dataset)
    assert set(lists) == {"6", "8"}  # subjects: 1 + 1 + 1, and 2 + 1 + 1; two frames each
    assert set(lists["6"]) < set(lists["8"])
    assert [case[0] for case in lists["8"]] == ["B"] * 4 + ["C"] * 2 + ["D"] * 2
    new = convert.split(dataset, 6)
    assert counts(new)["imagesUn"] == 46


def test_a_case_is_a_complete_frame(source: Path, convert: Converter) -> None:
    dataset = convert("mnms", source, "--target", "D")
    study = read(source / "Training/Labeled/A00XY0/A00XY0_sa.nii.gz")
    np.testing.assert_array_equal(read(dataset / "imagesTr/A_A00XY0_ED_0000.nii.gz"), study[0])
    np.testing.assert_array_equal(read(dataset / "imagesTr/A_A00XY0_ES_0000.nii.gz"), study[3])


def test_the_published_numbers_follow_from_the_rule() -> None:
    from semi_nnunet.datasets.mnms import _subset

    numbers = {"A": 95, "B": 125, "C": 50, "D": 50}
    subjects = {
        f"{v}{i:03d}": {"Vendor": v} for v, number in numbers.items() for i in range(number)
    }
    sizes = [[len(_subset(subjects, v, p, 0)) for v in numbers] for p in (2, 5)]
    assert sizes == [[10, 8, 12, 12], [26, 22, 30, 30]]


def test_subjects_of_only_the_table_or_the_files_are_reported(
    source: Path, convert: Converter
) -> None:
    (source / "Validation/B01XY0/B01XY0_sa_gt.nii.gz").unlink()
    (source / "Testing/B02XY0/B02XY0_sa.nii.gz").unlink()
    write_volume(source / "Testing/Z00XY0/Z00XY0_sa.nii.gz", shape=SHAPE)
    table = source / TABLE
    table.write_text(table.read_text().replace("A00XY0,Some,A", "A00XY0,Some,Q"))
    message = convert.error("mnms", source, "--target", "A")
    assert "B01XY0_sa_gt.nii.gz: the file is" in message
    assert "B02XY0_sa.nii.gz: the file is" in message
    assert "Z00XY0_sa.nii.gz: the table" in message
    assert "line 2" in message
    table.unlink()
    assert "*information*.csv" in convert.error("mnms", source, "--target", "A")


def test_a_table_in_another_encoding_is_read(source: Path, convert: Converter) -> None:
    table = source / TABLE
    table.write_bytes(table.read_text().replace("Some", "M\xfcnchen").encode("latin-1"))
    assert counts(convert("mnms", source, "--target", "A"))["imagesTs"] == 6


@pytest.mark.parametrize(("comma", "encoding"), [(";", "utf-8"), (",", "utf-16")])
def test_a_table_without_the_columns_is_reported(
    source: Path, convert: Converter, comma: str, encoding: str
) -> None:
    table = source / TABLE
    table.write_text(table.read_text().replace(",", comma), encoding)
    message = convert.error("mnms", source, "--target", "A")
    assert f"{TABLE}: must " in message and "as text in UTF-8 with commas" in message
    assert "line 2" not in message


def test_a_subject_that_is_listed_twice_is_reported(source: Path, convert: Converter) -> None:
    table = source / TABLE
    table.write_text(table.read_text() + "100,A00XY0,Some,B,1,50,1,2\n")
    message = convert.error("mnms", source, "--target", "A")
    assert "line 32: A00XY0 must be listed" in message


def test_frames_of_unused_subjects_may_be_unknown(source: Path, convert: Converter) -> None:
    table = source / TABLE
    table.write_text(table.read_text().replace("99,C99XY0,GE,C,4,50,1,2", "99,C99XY0,GE,C,4,50,,"))
    assert counts(convert("mnms", source, "--target", "A"))["imagesTr"] == 52


def test_a_frame_that_does_not_exist_is_reported(source: Path, convert: Converter) -> None:
    table = source / TABLE
    table.write_text(table.read_text().replace("A00XY0,Some,A,1,50,0,3", "A00XY0,Some,A,1,50,0,9"))
    message = convert.error("mnms", source, "--target", "A")
    assert "A00XY0, frame 9" in message and "must be 4-D with a frame 9" in message
