"""The cases to annotate next: typical, different, of other patients, whatever the labels are."""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.annotation.next_cases import (
    choose_members,
    cover_pool,
    find_next_cases,
    scale_thumbnails,
)
from semi_nnunet.cli.main import main
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv
from semi_nnunet.verify.reports import CaseReport
from tests.annotation.conftest import NAME


def cover_slowly(pool: np.ndarray, known: np.ndarray, names: list[str], count: int) -> list[int]:
    """Try every image that may be chosen, and sum all distances anew."""
    chosen: list[int] = []
    farthest = max(float(np.linalg.norm(one - other)) for one in pool for other in pool)
    for _ in range(count):
        sums = {}
        for new in range(len(pool)):
            if names[new] in {names[index] for index in chosen}:
                continue
            centres = [*known, *(pool[index] for index in [*chosen, new])]
            sums[new] = sum(
                min([farthest, *(float(np.linalg.norm(row - c)) for c in centres)]) for row in pool
            )
        chosen.append(min(sums, key=lambda index: (round(sums[index], 9), index)))
    return chosen


@pytest.mark.parametrize("labelled", [0, 3])
def test_the_choice_is_that_of_the_slow_search(labelled):
    random = np.random.default_rng(labelled)
    pool, known = random.normal(size=(25, 3)), random.normal(size=(labelled, 3))
    names = [str(number // 2) for number in range(25)]
    chosen, members = cover_pool(pool, known, names, 6)
    assert chosen == cover_slowly(pool, known, names, 6)
    distances = np.linalg.norm(pool[:, None] - pool[chosen][None], axis=2)
    assert np.array_equal(members, distances.argmin(1))


@pytest.mark.parametrize("rule", ["typical", "uncertain", "random"])
def test_no_patient_is_chosen_twice_and_every_choice_repeats(rule):
    random = np.random.default_rng(0)
    pool, cases = random.normal(size=(40, 2)), [f"case_{number:02}" for number in range(40)]
    names = [str(number // 4) for number in range(40)]
    scores = dict(zip(cases, random.uniform(size=40), strict=True))
    medoids, members = cover_pool(pool, np.empty((0, 2)), names, 5)
    arguments = (cases, names, medoids, members, rule, scores)
    chosen = choose_members(*arguments, seed=1)
    assert len(chosen) == 5
    assert Counter(names[cases.index(case)] for case in chosen).most_common(1)[0][1] == 1
    assert chosen == choose_members(*arguments, seed=1)
    assert rule == "typical" or chosen != choose_members(*arguments, seed=2)


def test_uncertain_cases_are_drawn_in_proportion_to_their_uncertainty():
    cases, members = ["a", "b", "c"], np.zeros(3, int)
    scores = {"a": 0.1, "b": 0.3, "c": 0.0}
    drawn = Counter(
        choose_members(cases, cases, [2], members, "uncertain", scores, seed)[0]
        for seed in range(4000)
    )
    assert drawn["c"] == 0 and drawn["b"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_squared_distances_are_twice_one_minus_the_correlation():
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (3, 576)).astype(np.uint8)
    reports = [
        CaseReport(str(n), "unlabelled", None, (), thumbnail=base64.b64encode(v.tobytes()).decode())
        for n, v in enumerate(values)
    ]
    one, two, _ = scale_thumbnails(reports)
    correlation = np.corrcoef(values[0], values[1])[0, 1]
    assert np.square(one - two).sum() == pytest.approx(2 * (1 - correlation), abs=1e-4)


def find(dataset, tmp_path: Path, count: int, **options):
    return find_next_cases(dataset, count, out=tmp_path / "next.html", **options)


def test_a_page_and_a_table_show_unlabelled_cases(loop, tmp_path, capsys):
    raw = loop.raw
    words = ["next", "-d", NAME, "-n", "2", "-o", tmp_path / "page.html"]
    assert main([*map(str, words)]) == 0
    unlabelled = {path.name[:-12] for path in (raw / "imagesUn").iterdir()}
    _, rows = read_csv(tmp_path / "page.csv")
    chosen = [row["case"] for row in rows]
    assert len({*chosen}) == 2 and {*chosen} <= unlabelled
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2 and all(case in page for case in chosen)


def test_labels_of_labelled_cases_change_nothing(loop, tmp_path):
    before = [item.case.case for item in find(NAME, tmp_path, 3).cases]
    first, second = sorted((loop.raw / "labelsTr").iterdir())[:2]
    shutil.copy(second, first)
    assert [item.case.case for item in find(NAME, tmp_path, 3).cases] == before


def test_more_cases_than_patients_are_not_invented(loop, tmp_path, caplog):
    path = loop.raw / "dataset.json"
    content = json.loads(path.read_text())
    number = len(list((loop.raw / "imagesUn").iterdir()))
    found = find(NAME, tmp_path, 99)
    assert len(found.cases) == number and "99 cases were asked for" in caplog.text
    path.write_text(json.dumps({**content, "patient": "(.).*"}))  # all are of one patient
    with pytest.raises(UserError, match="no image of a patient without label"):
        find(NAME, tmp_path, 2)


def test_without_any_label_typical_cases_are_chosen(loop, tmp_path):
    raw = loop.raw
    for folder in ("imagesTr", "labelsTr"):
        shutil.rmtree(raw / folder)
        (raw / folder).mkdir()
    path = raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "numTraining": 0}))
    shutil.rmtree(loop.preprocessed)
    found = find(NAME, tmp_path, 2)
    assert len(found.cases) == 2 and all(math.isnan(item.uncertainty) for item in found.cases)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"count": 0}, "-n"), ({"rule": "uncertain"}, "models"), ({"out": "x.csv"}, "HTML")],
)
def test_wrong_options_are_named_before_images_are_read(loop, tmp_path, options, word):
    given = {"count": 2, "out": tmp_path / "next.html", **options}
    with pytest.raises(UserError, match=word):
        find_next_cases(NAME, given.pop("count"), **{**given, "out": Path(given["out"])})
