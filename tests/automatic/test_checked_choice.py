"""The exported model has the higher expected Dice, and claims are beyond chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semi_nnunet.automatic.checked_choice import (
    LIKELY,
    NO_DIFFERENCE,
    PROVEN,
    TOO_SHORT,
    WORSE,
    check_choice,
    rank_trainers,
)
from semi_nnunet.runs.job import Job
from semi_nnunet.util.files import write_json
from tests.runs.jobs import BASE, OURS, fake_job, leave, leave_history

CASES = 12


def measured(job: Job, folder: str, gain: float) -> Job:
    """Leave a finished training whose mean Dice is .5 and the gain, with other noise in each."""
    leave(job)
    table = job.folder / folder / "metrics.csv"
    table.parent.mkdir()
    noise = np.random.default_rng(len(job.trainer)).normal(0, 0.004, CASES)
    dice = 0.5 + gain + noise - noise.mean()
    rows = [f"case_{n},organ,{dice[n]}" for n in range(CASES)]
    table.write_text("\n".join(["case,class,dice", *rows]) + "\n", encoding="utf-8")
    return job


def test_the_trainers_are_ranked_by_validation_cases(empty) -> None:
    jobs = [
        measured(fake_job(empty, name), "validation", gain)
        for name, gain in ((BASE, 0.0), (OURS, 0.1), ("SemiCPSTrainer", -0.1))
    ]
    assert [*rank_trainers(jobs)] == [OURS, BASE, "SemiCPSTrainer"]


@pytest.mark.parametrize(
    ("gain", "exported", "answer"),
    [
        (0.1, OURS, PROVEN),
        (0.003, OURS, LIKELY),
        (-0.0015, BASE, NO_DIFFERENCE),
        (-0.1, BASE, WORSE),
    ],
)
@pytest.mark.parametrize("subset", ["validation", "test"])
def test_a_method_is_exported_if_a_gain_is_expected_and_claims_only_what_is_proven(
    empty, gain: float, exported: str, answer: str, subset: str
) -> None:
    if subset == "test":
        (empty.raw / "labelsTs").mkdir()
        (empty.raw / "labelsTs" / "case_0.nii.gz").touch()
    fold = "all" if subset == "test" else "0"
    jobs = [
        measured(replace(fake_job(empty, name), fold=fold), subset, g)
        for name, g in ((BASE, 0.0), (OURS, gain))
    ]
    checked = check_choice(jobs, OURS)
    assert checked.exported == exported and checked.answer.startswith(answer)
    assert f"{100 * gain:+.2f} points" in checked.answer
    assert f"on {CASES} {subset} cases" in checked.answer


def test_images_of_one_patient_count_as_one(empty) -> None:
    write_json(empty.raw / "dataset.json", {"file_ending": ".nii.gz", "patient": "case_[0-9]"})
    jobs = [
        measured(fake_job(empty, name), "validation", g) for name, g in ((BASE, 0.0), (OURS, 0.1))
    ]
    answer = check_choice(jobs, OURS).answer
    assert "on 10 validation patients that" in answer  # 1, 10 and 11 are one


def test_without_a_case_to_compare_the_baseline_is_exported(empty) -> None:
    jobs = [fake_job(empty, name) for name in (BASE, OURS)]
    for job in jobs:
        leave(job)
    assert check_choice(jobs, OURS).exported == BASE


@pytest.mark.parametrize(("steps", "answer"), [(100, TOO_SHORT), (250, PROVEN)])
def test_nothing_is_claimed_of_a_few_steps(empty, steps: int, answer: str) -> None:
    jobs = [
        measured(fake_job(empty, name), "validation", gain) for name, gain in ((BASE, 0), (OURS, 1))
    ]
    for job in jobs:
        leave(job, steps_per_epoch=steps)
        leave_history(job, [1.0, 1.0])
    assert check_choice(jobs, OURS).answer.startswith(answer)
