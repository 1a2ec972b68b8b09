"""Trainings that are compared were alike but for their method, or it is said."""

import os
import shutil
import time
from dataclasses import replace

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.data.patients import itself
from semi_nnunet.runs.crossval import make_jobs
from semi_nnunet.runs.matched import CASES, trained_with, unmatched
from semi_nnunet.runs.trainings import found_jobs, tables_of
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.runs.tiny import TINY

BASE, OURS = "SemiBaselineTrainer", "SemiMeanTeacherTrainer"


def jobs_of(folders, folds=("0",)):
    return make_jobs(folders, "tiny", ["2d"], [BASE, OURS], list(folds), 1)


def leave(job, cases=("a", "b"), unlabelled=(), **settings):
    """What a finished training leaves, as far as it says how it was trained."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.checkpoint.touch()
    values = {"seed": 0, **settings}
    record = {"settings": {name: {"value": value} for name, value in values.items()}}
    used = {"labelled": list(cases), "unlabelled": list(unlabelled)}
    write_json(job.folder / "semi_settings.json", {**record, "cases": used})


def test_what_differs_from_the_baseline_is_named_with_both_values(folders):
    base, ours, base_1, ours_1 = jobs_of(folders, ("0", "1"))
    for job in (base, base_1):
        leave(job, epochs=2, momentum=0.99, ramp_up="gaussian")
    leave(ours, ("b", "a"), epochs=2, momentum=0.99, ramp_up="linear", seed=3)
    assert trained_with(ours) == {"epochs": 2, "momentum": 0.99, CASES: ["a", "b"]}
    assert unmatched([base, ours], BASE) == []  # a method's own settings are its own
    leave(ours, ("a", "c", "d", "e"), epochs=5, momentum=0.99)
    leave(ours_1, epochs=5, momentum=0.99)
    first, second = unmatched([base, ours, base_1, ours_1], BASE)
    assert "epochs 5 against 2 (fold 0 seed 0, fold 1 seed 0)" in first and OURS in first
    assert "labelled cases 4 (a, c, d, ...) against 2 (a, b, ...) (fold 0 seed 0)" in second
    (ours.folder / "semi_settings.json").unlink()
    (said,) = unmatched([base, ours], BASE)  # as nnU-Net's own trainers leave nothing
    assert said.startswith(f"Whether {OURS} 2d and {BASE} are matched is not known: {OURS} left")
    ours.checkpoint.unlink()
    assert unmatched([base, ours], BASE) == []  # it was never trained


def test_plans_that_changed_after_a_training_are_refused_before_the_next(folders):
    base, _ = jobs_of(folders)
    leave(base, ("a",), **{name: TINY[name] for name in ("epochs", "steps_per_epoch")})
    assert jobs_of(folders)
    plans = read_json(folders.preprocessed / "tiny.json")
    changed = {**plans, "semi": {**TINY, "steps_per_epoch": 5, OURS: {"consistency_weight": 3.0}}}
    write_json(folders.preprocessed / "tiny.json", changed)
    with pytest.raises(UserError, match=r"was trained with steps_per_epoch 1 \(now 5\).*--name"):
        jobs_of(folders)
    of_method = {**plans, "semi": {**TINY, OURS: {"consistency_weight": 3.0}}}
    write_json(folders.preprocessed / "tiny.json", of_method)
    of_unlabelled = {**plans, "semi": {**of_method["semi"], "unlabelled_weight": 0.5}}
    write_json(folders.preprocessed / "tiny.json", of_unlabelled)
    leave(base, ("a",), unlabelled_weight=1.0, focal_gamma=2.0)
    _, ours = jobs_of(folders)  # what only a method has may change, unless it was trained with it
    leave(base, ("a",), ["u"], unlabelled_weight=1.0)  # had it used unlabelled cases
    with pytest.raises(UserError, match=r"unlabelled_weight 1.0 \(now 0.5\)"):
        jobs_of(folders)
    leave(base, ("a",), unlabelled_weight=1.0)
    leave(ours, ("a",), consistency_weight=10.0, mlflow=True)
    changed = r"consistency_weight 10.0 \(now 3.0\); .* move .*fold_0"
    with pytest.raises(UserError, match=changed):
        jobs_of(folders)
    ours.checkpoint.rename(ours.folder / "checkpoint_latest.pth")
    with pytest.raises(UserError, match=changed):  # it would go on with other settings
        jobs_of(folders)
    (ours.folder / "checkpoint_latest.pth").unlink()
    assert jobs_of(folders)  # it starts anew


def test_a_pool_that_changed_after_a_training_is_refused(folders):
    _, ours = jobs_of(folders)
    now = ours.unlabelled_cases(itself)
    leave(ours, unlabelled=now)
    assert len(now) > 1 and jobs_of(folders)
    leave(ours, unlabelled=now[1:])
    with pytest.raises(UserError, match=rf"unlabelled cases {len(now) - 1} \(.*\(now {len(now)} "):
        jobs_of(folders)
    leave(ours, unlabelled=now[1:], filter_epochs=[])
    with pytest.raises(UserError, match="unlabelled cases"):
        jobs_of(folders)
    assert jobs_of(folders, ("1",))  # of another fold
    leave(ours, unlabelled=now[1:], filter_epochs=[3])  # its record may be of after the filtering
    with pytest.raises(UserError, match=r"filter_epochs \[3\] \(now \[\]\)") as caught:
        jobs_of(folders)
    assert "unlabelled cases" not in str(caught.value)


def test_trainings_of_one_trainer_that_are_not_alike_are_named(folders):
    _, ours, _, ours_1 = jobs_of(folders, ("0", "1"))
    seeded = replace(ours, plans="tiny_seed1", seed=1)
    leave(ours, ("a", "b"), ("u", "v"), consistency_weight=10.0)
    leave(seeded, ("a", "b"), ("u", "v"), consistency_weight=10.0, seed=1)
    leave(ours_1, ("a", "c"), ("u",), consistency_weight=10.0)  # folds have their own cases
    assert unmatched([ours, ours_1, seeded], BASE) == []
    leave(seeded, ("a", "b"), ("u", "v", "w", "x"), consistency_weight=3.0, seed=1)
    leave(ours_1, ("a", "c"), ("u",), consistency_weight=3.0)
    said = sorted(unmatched([ours, ours_1, seeded], BASE))
    first = "fold 0 seed 0"
    assert [one.removeprefix(f"The trainings of {OURS} 2d are not alike: ") for one in said] == [
        f"consistency_weight 3.0 (fold 1 seed 0, fold 0 seed 1) against 10.0 ({first})",
        f"unlabelled cases 4 (u, v, w, ...) (fold 0 seed 1) against 2 (u, v, ...) ({first})",
    ]


def test_copies_that_somebody_keeps_are_no_trainings(folders):
    base, ours = jobs_of(folders)
    leave(base), leave(ours)
    shutil.copytree(base.folder, base.folder.with_name("fold_0_old"))
    shutil.copytree(base.folder.parent, base.folder.parent.with_name(f"{OURS}__tiny__2d__old"))
    assert found_jobs(folders, "tiny") == [base, ours]


def test_a_fold_trained_again_is_predicted_and_measured_again(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in ("imagesTs/case_0000", "labelsTs/case"):
        (raw / f"{name}.nii.gz").parent.mkdir(parents=True)
        (raw / f"{name}.nii.gz").touch()
    _, ours = jobs_of(replace(folders, raw=raw))
    leave(ours)
    for name in ("test/case.nii.gz", "test/metrics.csv", "validation/a.nii.gz",
                 "validation/metrics.csv", "validation/summary.json"):  # fmt: skip
        (ours.folder / name).parent.mkdir(exist_ok=True)
        (ours.folder / name).touch()
    assert ours.is_done
    later = time.time() + 3600
    os.utime(ours.validation / "summary.json", (later, later))
    assert [" ".join(map(str, c)).split(" -")[0] for c in ours.commands("cpu", 1)] == [
        "semi_nnunet evaluate"
    ]
    os.utime(ours.checkpoint, (later, later))
    assert not ours.is_tested and not ours.is_done
    os.utime(ours.test / "case.nii.gz", (later, later))
    assert ours.is_tested and not ours.is_done  # predicted again by hand, not measured
    for table in ours.tables().values():
        os.utime(table, (later, later))
    assert ours.is_done
    with pytest.raises(UserError, match="add the step predict"):
        (ours.test / "case.nii.gz").unlink()
        make_jobs(ours.folders, "tiny", ["2d"], [OURS], ["0"], 1, steps=["train", "evaluate"])


def test_compare_names_what_was_not_trained_and_what_is_not_matched(folders, capsys):
    name = folders.results.name
    base, ours = jobs_of(folders)
    leave(base, epochs=2), leave(ours, epochs=3)
    wrong = ["-tr", "SemiMeanTecherTrainer", "-c", "2D"]
    assert main(["compare", "-d", name, "-p", "tiny", *wrong]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'SemiMeanTeacherTrainer'?" in said and "did you mean '2d'?" in said
    assert main(["compare", "-d", name, "-p", "tiny"]) == 2
    assert "has been measured. Fix: semi_nnunet crossval" in capsys.readouterr().err
    for job, dice in ((base, 0.5), (ours, 0.6)):
        job.validation.mkdir()
        rows = "".join(f"case_{n},organ,{dice + n / 100}\n" for n in range(5))
        (job.validation / "metrics.csv").write_text(f"case,class,dice\n{rows}")
    stale = replace(ours, plans="tiny_seed1", seed=1)  # trained again by hand
    shutil.copytree(ours.folder, stale.folder)
    (stale.validation / "summary.json").touch()
    an_hour_ago = time.time() - 3600
    os.utime(stale.validation / "metrics.csv", (an_hour_ago, an_hour_ago))
    assert main(["compare", "-d", name, "-p", "tiny"]) == 0
    said = capsys.readouterr().out
    assert f"is older than the training or validation of {stale}" in said
    assert len(found_jobs(folders, "tiny")) == 3
    tables = tables_of(found_jobs(folders, "tiny"), "validation")
    assert [seed for _, _, seed, _ in tables] == [0, 0]
    for one in (base, ours):
        (one.validation / "summary.json").touch()
        os.utime(one.validation / "metrics.csv", (an_hour_ago, an_hour_ago))
    for verb in (["compare"], ["report", "-o", "page.html"]):
        assert main([*verb, "-d", name, "-p", "tiny"]) == 2
        assert "touch the file" in capsys.readouterr().err
    assert f"{OURS} 2d and {BASE} are not matched: epochs 3 against 2 (fold 0 seed 0)" in said
