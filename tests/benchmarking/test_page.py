"""The table of a benchmark."""

from __future__ import annotations

import json

import pytest

from semi_nnunet.benchmarking.page import lines
from semi_nnunet.benchmarking.run import combine_costs
from semi_nnunet.benchmarking.steps import FLOOR, MemoryAndLoading, StepTimes
from semi_nnunet.benchmarking.work import STOCK, Work
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.timing import Seconds


@pytest.fixture
def measured():
    times = StepTimes(
        {
            FLOOR: Seconds(0.1, 0.09, 0.11),
            BASELINE: Seconds(0.104, 0.1, 0.11),
            STOCK: Seconds(0.11, 0.1, 0.12),
            "SemiMeanTeacherTrainer": Seconds(0.245, 0.24, 0.25),
        },
        {FLOOR: 3e9, BASELINE: 3e9, "SemiMeanTeacherTrainer": 7e9},
        refused={"SemiCPSTrainer": "too little memory"},
        patches={BASELINE: 2, STOCK: 2, "SemiMeanTeacherTrainer": 4},
        starts={BASELINE: 3.0, STOCK: 2.0, "SemiMeanTeacherTrainer": 4.0},
        case=12.0,
    )
    separate = {
        BASELINE: MemoryAndLoading(1000.0, 0.05),
        STOCK: MemoryAndLoading(refused="killed"),
        "SemiMeanTeacherTrainer": MemoryAndLoading(1100.0, 0.1),
    }
    names = [BASELINE, STOCK, "SemiMeanTeacherTrainer", "SemiCPSTrainer"]
    return combine_costs(Work("Dataset004_A", "2d", "P", "cpu", 1, 9), names, times, separate)


def test_ratios_are_to_the_baseline_and_to_the_passes(measured) -> None:
    page = list(lines(measured))
    rows = {line.split("|")[1].strip(): line for line in page if line.startswith("| ")}
    cells = [cell.strip() for cell in rows["SemiMeanTeacherTrainer"].split("|")[1:-1]]
    assert cells == [
        *("SemiMeanTeacherTrainer", "245.0", "240.0 to 250.0", "2.36", "2.33", "1.05"),
        *("16.3", "100.0", "1100", "1.10"),
    ]
    stock = [cell.strip() for cell in rows[STOCK].split("|")[1:-1]]
    assert stock == [STOCK, "110.0", "100.0 to 120.0", "1.06", "-", "-", "18.2", *"---"]
    assert page[-2:] == ["SemiCPSTrainer: too little memory", f"{STOCK}: killed"]
    assert "labelled forward and backward pass: 100.0 ms" in page
    assert "prediction of a case of median size, mirrored: 12.0 s" in page
    assert len({len(line) for line in page if line.startswith("|")}) == 1


def test_json_holds_all_measurements(measured) -> None:
    content = json.loads(json.dumps(measured.as_json()))
    assert (
        content["costs"][2]["seconds"]["median"] == 0.245 and content["floor"]["operations"] == 3e9
    )
    assert content["costs"][2]["patches_per_second"] == pytest.approx(4 / 0.245)
    assert (
        content["floor"]["patches"] is None
        and content["machine"]["torch"]
        and content["work"]["configuration"] == "2d"
    )
