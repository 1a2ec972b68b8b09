"""Plans of a seed are those plans with another seed, and are replaced by no others."""

from __future__ import annotations

import pytest

from semi_nnunet.runs.seeds import (
    find_seed_problems,
    name_seed_plans,
    split_seed_name,
    write_seed_plans,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.crossval import make_jobs
from tests.runs.jobs import TRAINERS
from tests.runs.tiny import TINY


def test_seeds_count_from_the_plans_own(folders):
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "seed": 5}})
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 3)
    seeds = [read_json(folders.preprocessed / f"tiny_seed{n}.json")["semi"]["seed"] for n in (1, 2)]
    assert seeds == [6, 7]


@pytest.mark.parametrize(
    "section",
    [{"2d": {"seed": 7}}, {TRAINERS[1]: {"seed": 7}}, {TRAINERS[1]: {"2d": {"seed": 7}}}],
)
def test_a_seed_that_would_hold_for_all_seeds_is_refused(folders, section):
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, **section}})
    assert make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 1)
    with pytest.raises(UserError, match="every seed"):
        make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)


def test_plans_of_a_seed_that_was_trained_are_not_replaced_by_others(folders):
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": 3}})
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)  # nothing was trained: written again
    assert read_json(folders.preprocessed / "tiny_seed1.json")["semi"]["epochs"] == 3
    trained = folders.results / "SemiBaselineTrainer__tiny_seed1__2d" / "fold_0"
    trained.mkdir(parents=True)
    (trained / "checkpoint_latest.pth").touch()
    write_json(folders.preprocessed / "tiny.json", plans)
    with pytest.raises(UserError, match="differs from tiny"):
        make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)


def test_plans_that_the_user_made_are_not_replaced(folders):
    plans = read_json(folders.preprocessed / "tiny.json")
    own = {**plans, "plans_name": "tiny_seed1", "semi_planned": {"from": "tiny"}}
    path = folders.preprocessed / "tiny_seed1.json"
    write_json(path, {**own, "semi": {**plans["semi"], "initial_lr": 0.123}})
    before = path.read_bytes()
    with pytest.raises(UserError, match="semi_nnunet plan wrote it"):
        make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
    assert path.read_bytes() == before
    write_json(path, {**own, "semi": {**plans["semi"], "seed": 1}})  # the same seed, planned
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)


def test_a_newer_rule_does_not_stop_trainings_that_were_begun(folders):
    """Planning again writes its value; what was trained without keeps its plans."""
    plans = read_json(folders.preprocessed / "tiny.json")
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
    earlier = read_json(folders.preprocessed / "tiny_seed1.json")
    trained = folders.results / "SemiBaselineTrainer__tiny_seed1__2d" / "fold_0"
    trained.mkdir(parents=True)
    (trained / "checkpoint_latest.pth").touch()
    ruled = {"SemiFixMatchTrainer": {"2d": {"class_wise_threshold": True}}, "ramp_up_steps": 3}
    for assigned in ({}, {"ramp_up_steps": 3}):
        semi = {**plans["semi"], **ruled}
        planned = {"given": {**plans["semi"], **assigned}, "semi": semi}
        again = {**plans, "semi": semi, "semi_planned": planned}
        write_json(folders.preprocessed / "tiny.json", again)
        if assigned:  # by a person
            with pytest.raises(UserError, match="differs from tiny"):
                make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
        else:
            make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
        assert read_json(folders.preprocessed / "tiny_seed1.json") == earlier
    write_json(folders.preprocessed / "tiny.json", plans)


@pytest.mark.parametrize("plans", ["nnUNetPlans", "a_b", "x_seed", "seed1"])
def test_the_name_of_seed_plans_contains_plans_and_seed(plans):
    for seed in (1, 2, 10):
        assert split_seed_name(name_seed_plans(plans, seed)) == (plans, seed)
    assert name_seed_plans(plans, 0) == plans and split_seed_name(plans) == (plans, 0)


def test_a_name_without_plans_is_no_seed():
    for name in ("_seed1", "x_seed1a"):
        assert split_seed_name(name) == (name, 0)


def test_plans_of_a_seed_differ_only_in_name_and_seed(empty):
    content = {
        "plans_name": "small", "configurations": {"2d": {"patch_size": [8, 8]}},
        "semi": {"seed": 40, "epochs": 3}, "semi_planned": {"given": {}},
    }  # fmt: skip
    assert write_seed_plans(empty, "small", content, 2) == "small_seed2"
    written = read_json(empty.preprocessed / "small_seed2.json")
    del content["semi_planned"]  # plans of seeds are not planned
    assert written == {
        **content, "plans_name": "small_seed2", "semi": {"seed": 42, "epochs": 3}
    }  # fmt: skip


def test_every_section_with_a_seed_is_named():
    semi = {"seed": 1, "2d": {"seed": 2}, "Trainer": {"3d": {"seed": 3}, "epochs": 1}}
    problems = list(find_seed_problems({"semi": semi}, "small"))
    assert [problem.what.split(" ")[0] for problem in problems] == ["2d.seed", "Trainer.3d.seed"]
    assert {problem.where for problem in problems} == {"small"} and not [
        *find_seed_problems({}, "x")
    ]
