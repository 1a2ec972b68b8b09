"""The baseline that trains as long as a method: its length, its jobs and its comparison."""

from __future__ import annotations

import re
from typing import Any

import pytest

from semi_nnunet.benchmarking.plan_length import plan_longer_baseline
from semi_nnunet.cli.main import main
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.longer_baseline import name_longer_plans
from semi_nnunet.settings.overrides import merge_layers
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.method_names import name_method
from semi_nnunet.workflows.compare import compare_trainings
from tests.runs.jobs import BASE, OURS, fake_job, jobs_of, leave, leave_history

LONGER = name_longer_plans("tiny", OURS)


def leave_dice(job: Job, values: list[float], subset: str = "validation") -> None:
    """Write a table of metrics with these values of the cases."""
    folder = job.folder / subset
    folder.mkdir(parents=True)
    rows = "".join(f"case_{n},organ,{value}\n" for n, value in enumerate(values))
    (folder / "metrics.csv").write_text(f"case,class,dice\n{rows}")


def test_the_baseline_gets_the_steps_that_fit_into_the_time_of_the_method(folders):
    base, ours = jobs_of(folders)
    leave(base, epochs=2, steps_per_epoch=1), leave(ours, epochs=2, steps_per_epoch=1)
    leave_history(base, [9.0, 2.0, 2.0])  # the first epoch waits for files
    leave_history(ours, [9.0, 7.0, 7.0])
    name = folders.preprocessed.name
    settings = plan_longer_baseline(name, "tiny", ["2d"], OURS)
    assert settings == {f"{BASE}.2d.epochs": 7, f"{OURS}.2d.epochs": 2}  # 2 x 7 / 2


def test_a_planned_length_stays_until_the_length_of_the_method_changes(folders):
    base, ours = jobs_of(folders)
    leave(base, steps_per_epoch=1), leave(ours, steps_per_epoch=1)
    leave_history(base, [2.0]), leave_history(ours, [8.0])
    name, path = folders.preprocessed.name, folders.preprocessed / f"{LONGER}.json"
    plans = read_json(folders.preprocessed / "tiny.json")

    def plan(**then: Any) -> int:
        """Return the epochs of the baseline; the method was planned with these settings before."""
        longer = merge_layers(
            plans["semi"], {BASE: {"2d": {"epochs": 5}}, OURS: {"2d": {"epochs": 2, **then}}}
        )
        write_json(path, {**plans, "plans_name": LONGER, "semi": longer})
        return plan_longer_baseline(name, "tiny", ["2d"], OURS)[f"{BASE}.2d.epochs"]

    assert plan() == 5
    assert plan(epochs=3) == 8  # now it has two
    assert plan(cutmix_probability=0.0) == 8  # another method may take another time


def test_without_a_known_time_the_benchmark_is_named(folders):
    name = folders.preprocessed.name
    with pytest.raises(UserError) as caught:
        plan_longer_baseline(name, "tiny", ["2d"], OURS)
    (problem,) = caught.value.problems
    assert problem.fix == f"semi_nnunet benchmark -d {name} -c 2d -p tiny -tr {OURS}"
    with pytest.raises(UserError, match=BASE):
        plan_longer_baseline(name, "tiny", ["2d"], BASE)


def test_both_gains_are_compared_each_with_its_baseline(folders, tmp_path):
    base, ours = jobs_of(folders)
    longer = Job(folders, BASE, "2d", "0", 0, LONGER)
    for job, dice, seconds in ((base, 0.5, 1.0), (ours, 0.6, 3.0), (longer, 0.57, 3.0)):
        epochs = 6 if job is longer else 2
        leave(job, epochs=epochs, steps_per_epoch=50, labelled_batch_size=4)
        leave_history(job, [seconds * 600 / epochs] * epochs)
        leave_dice(job, [dice + n / 100 for n in range(8)])
    text = compare_trainings(folders.raw.name, plans="tiny")
    equal_steps, equal_time = text.split("equal training time")
    assert "+10.00" in equal_steps and "+3.00" in equal_time
    row = next(
        line for line in equal_time.splitlines() if line.startswith(f"| {name_method(OURS)}")
    )
    cells = [cell.strip() for cell in row.split("|")][1:]
    assert cells[2:8] == ["100", "30 min", "300", "30 min", "63.50", "60.50"]
    assert "not matched" not in text
    page = tmp_path / "page.html"
    assert main(["report", "-d", folders.raw.name, "-p", "tiny", "-o", str(page)]) == 0
    html = " ".join(page.read_text(encoding="utf-8").split())
    answer, table = html.split("At equal training time, validation cases")
    assert "(300 steps) reaches 60.50: +3.0 points" in answer
    assert [*re.findall(r"<td[^>]*>(\d+|\d+ min)</td>", table)[:4]] == [
        "100",
        "30 min",
        "300",
        "30 min",
    ]
    leave(longer, epochs=6, steps_per_epoch=50, labelled_batch_size=2)
    assert "labelled_batch_size 4 against 2" in compare_trainings(folders.raw.name, plans="tiny")


@pytest.mark.slow
def test_one_command_trains_both_baselines_and_repeats_nothing(folders, capsys):
    name = folders.raw.name
    words = ["crossval", "-d", name, "-p", "tiny", "-c", "2d", "-f", "0", "--device", "cpu"]
    assert main([*words, "-tr", BASE, OURS, "--equal-time"]) == 0
    job = fake_job(folders, BASE)
    longer = Job(folders, BASE, "2d", "0", 0, LONGER)
    planned = read_json(folders.preprocessed / f"{LONGER}.json")["semi"][BASE]["2d"]["epochs"]
    recorded = read_json(longer.folder / "semi_settings.json")["settings"]
    assert recorded["epochs"]["value"] == planned == len(longer.history().rows)
    earlier = longer.checkpoint.read_bytes(), job.checkpoint.read_bytes()
    capsys.readouterr()
    assert main([*words, "-tr", BASE, OURS, "--equal-time"]) == 0
    assert "1 jobs, 1 done before" in capsys.readouterr().out
    assert earlier == (longer.checkpoint.read_bytes(), job.checkpoint.read_bytes())
    assert main(["compare", "-d", name, "-p", "tiny"]) == 0
    assert "equal training time" in capsys.readouterr().out
