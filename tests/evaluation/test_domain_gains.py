"""Gains by domain equal a slow computation on the cases of each domain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semi_nnunet.evaluation.domain_gains import compare_by_domain, format_domain_table
from semi_nnunet.evaluation.values import Value
from tests.evaluation.measured import BASE, OURS, values

NORTH = {f"case0{number}" for number in range(5)}


def domain_of(case: str) -> str:
    return "north" if case in NORTH else "south"


def build_values() -> list[Value]:
    """Return values of two cases each patient, with a gain in the north only."""
    rows = [*values(BASE, 0, noise=0.05), *values(OURS, 0, noise=0.05)]
    return [
        replace(
            v,
            value=v.value + 0.03 * (v.model == OURS and v.case in NORTH),
            patient=f"{domain_of(v.case)}{int(v.case[5:]) // 2}",
        )
        for v in rows
    ]


def compute_slow_gain(rows: list[Value], domain: str) -> tuple[float, int]:
    members = [v for v in rows if domain_of(v.case) == domain]
    gains = []
    for patient in sorted({v.patient for v in members}):
        seeds = []
        for seed in (0, 1):
            classes = []
            for name in ("liver", "tumour"):
                of_model = {
                    model: [
                        v.value
                        for v in members
                        if (v.model, v.patient, v.seed, v.name) == (model, patient, seed, name)
                    ]
                    for model in (OURS, BASE)
                }
                classes.append(np.mean(of_model[OURS]) - np.mean(of_model[BASE]))
            seeds.append(np.mean(classes))
        gains.append(np.mean(seeds))
    return float(np.mean(gains)), len(gains)


def test_gains_equal_a_slow_computation_with_patients_kept_together() -> None:
    rows = build_values()
    gains = compare_by_domain(rows, "Base", "dice", domain_of)
    assert [(gain.domain, gain.compared.model) for gain in gains] == [
        ("north", OURS),
        ("south", OURS),
    ]
    for gain in gains:
        overall = gain.compared.overall
        expected, patients = compute_slow_gain(rows, gain.domain)
        assert overall.mean == pytest.approx(expected) and overall.cases == patients
        assert overall.low < overall.mean < overall.high
    table = format_domain_table(gains, "dice")
    assert f"{100 * gains[0].compared.overall.mean:+.2f}" in table and len(table.split("\n")) == 4


def test_domains_without_a_common_case_and_data_sets_without_domains_have_no_rows() -> None:
    rows = [v for v in build_values() if v.model == BASE or v.case in NORTH]
    assert [gain.domain for gain in compare_by_domain(rows, "Base", "dice", domain_of)] == ["north"]
    assert compare_by_domain(rows, "Base", "dice", None) == []
    assert format_domain_table([], "dice") == ""
