"""dataset.json names the domain of each case; mistakes are named, and distances are computed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semi_nnunet.raw import folds
from semi_nnunet.raw.domains import NO_DOMAIN, DomainRule, find_domain_problems
from semi_nnunet.raw.readers import Geometry
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.verify.domain_distance import compute_domain_facts, load_domain_facts
from semi_nnunet.verify.integrity import verify_dataset
from semi_nnunet.verify.reports import CaseReport, write_reports
from tests.data.raw_datasets import describe, make

TWO = {"CHASE": "chase_", "STARE": "stare_"}


@pytest.mark.parametrize(
    ("value", "case", "domain"),
    [
        ("chase|stare", "stare_0002", "stare"),
        ("([a-z]+)_", "chase_01L", "chase"),
        ("chase", "a_chase", NO_DOMAIN),  # from the start
        (TWO, "stare_0002", "STARE"),
        (TWO, "kvasir", NO_DOMAIN),
        ({"one": "a", "two": "ab"}, "ab", NO_DOMAIN),
    ],
)
def test_a_case_belongs_to_the_one_domain_that_matches(value: Any, case: str, domain: str) -> None:
    rule = DomainRule.of({"domain": value})
    assert rule is not None and rule.domain_of(case) == domain


def test_without_the_key_there_are_no_domains() -> None:
    assert DomainRule.of({}) is None
    assert not [*find_domain_problems({}, ["a"], "dataset.json")]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("(", "regular expression"),
        (None, "regular expression"),
        (["a"], "regular expression"),
        ("(a)|(b)", "one group or none"),
        ({}, "must name a domain"),
        ({"A": "("}, "'domain' of 'A'"),
        ({" A": "a"}, "printable"),
        ({"": "a"}, "printable"),
        ({NO_DOMAIN: "a"}, "must not be 'no domain'"),
    ],
)
def test_an_invalid_value_is_refused(value: Any, word: str) -> None:
    with pytest.raises(UserError, match=word):
        DomainRule.of({"domain": value})


def test_every_mistake_is_named_in_one_pass(tmp_path: Path) -> None:
    root = make(tmp_path)  # cases a, b, t, u, v
    describe(root, domain={"one": "[abu]", "two": "[ut]"}, numTraining=7)
    with pytest.raises(UserError) as error:
        verify_dataset(root, 1, skip_bad=False)
    text = str(error.value)
    assert "none of v" in text and "u (one and two)" in text and "numTraining" in text


def test_an_expression_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "MATCH_S", 1)
    (problem,) = find_domain_problems({"domain": "(a|a)*c"}, ["a" * 60], "dataset.json")
    assert "within 1 s" in problem.what


# ---- distances ----


def report(case: str, subset: str, *values: float, **changes: Any) -> CaseReport:
    geometry = Geometry((4, 20, 20), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), None, "LPS")
    return CaseReport(case, subset, case, (), replace(geometry, **changes), (values,))


def four_reports() -> list[CaseReport]:
    return [
        report("a_1", "labelled", 0, 100, 200, 300, 1000),
        report("a_2", "labelled", 0, 120, 240, 360, 1000),
        report("b_1", "unlabelled", 0, 150, 300, 450, 1000, spacing=(4.0, 2.0, 2.0)),
        report("b_2", "test", 0, 150, 300, 450, 1000, spacing=(4.0, 2.0, 2.0)),
    ]


def domain_of(case: str) -> str:
    return case[0]


def test_cases_are_counted_and_distances_are_in_spreads_of_the_labelled_images() -> None:
    ours, other = compute_domain_facts(four_reports(), domain_of, ["CT"])
    assert (ours.name, ours.labelled, ours.unlabelled, ours.test) == ("a", 2, 0, 0)
    assert (other.name, other.labelled, other.unlabelled, other.test) == ("b", 0, 1, 1)
    assert ours.distance == 0 and (ours.spacing, ours.size) == pytest.approx((1, 1))
    spreads = [np.std(pair, ddof=1) for pair in ([100, 120], [200, 240], [300, 360])]
    expected = np.mean([40 / spreads[0], 80 / spreads[1], 120 / spreads[2]])
    assert other.distance == pytest.approx(expected)
    assert (other.spacing, other.size) == pytest.approx((2, 2))
    assert "NO LABEL" in str(other) and "NO LABEL" not in str(ours)


def test_a_unit_that_nnunet_removes_makes_no_distance() -> None:
    scaled = [
        replace(r, quantiles=(tuple(7 * v + 3 for v in r.quantiles[0]),)) if r.case > "b" else r
        for r in four_reports()
    ]
    plain, unit_free, with_unit = (
        compute_domain_facts(reports, domain_of, [channel])[1].distance
        for reports, channel in ((four_reports(), "MR"), (scaled, "MR"), (scaled, "CT"))
    )
    assert unit_free == pytest.approx(plain) and with_unit > 2 * plain


def test_labels_of_a_model_count_as_none_and_one_label_has_no_spread() -> None:
    ours, _ = compute_domain_facts(four_reports(), domain_of, ["CT"], {"a_2"})
    assert (ours.labelled, ours.unlabelled) == (1, 1) and math.isnan(ours.distance)
    (none,) = compute_domain_facts(four_reports()[2:], domain_of, ["CT"])
    assert math.isnan(none.spacing) and "two labelled" in str(none)
    constant = [replace(r, quantiles=((0.0,) * 5,)) for r in four_reports()]
    assert [facts.distance for facts in compute_domain_facts(constant, domain_of, ["MR"])] == [0, 0]


def test_facts_come_from_the_preprocessed_data_without_skipped_cases(tmp_path: Path) -> None:
    assert load_domain_facts(tmp_path) == []
    description = {"channel_names": {"0": "CT"}, "domain": "a|b"}
    write_json(tmp_path / "dataset.json", description)
    write_reports(tmp_path / "semi_checked.jsonl", four_reports())
    write_json(tmp_path / "semi_skipped.json", {"b_1": ["bad"]})
    assert [facts.unlabelled for facts in load_domain_facts(tmp_path)] == [0, 0]
    write_json(tmp_path / "dataset.json", {**description, "domain": "a|b|c"})
    assert [facts.name for facts in load_domain_facts(tmp_path)] == ["a", "b"]
