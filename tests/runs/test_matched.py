"""Compared trainings that differ in more than their method are reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing.manifest import read_sources
from semi_nnunet.raw.folds import case_as_patient
from semi_nnunet.raw.layout import TRAINED_FROM
from semi_nnunet.runs.folds import foresee_folds
from semi_nnunet.runs.job import build_training_command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.crossval import make_jobs
from semi_nnunet.workflows.matched import (
    CASES,
    find_mismatches,
    find_outdated_trainings,
    read_matched_settings,
)
from tests.runs.jobs import BASE, OURS, fake_job, jobs_of, leave
from tests.runs.tiny import TINY


def test_the_number_of_labelled_patches_is_the_choice_of_methods_that_share_the_batch(folders):
    base, *others = (
        fake_job(folders, trainer)
        for trainer in (BASE, "SemiFixMatchTrainer", "SemiUnifiedTrainer", "SemiMeanTeacherTrainer")
    )
    leave(base, labelled_batch_size=12, epochs=2)
    for job in others:
        leave(job, labelled_batch_size=6, epochs=2)
    (sentence,) = find_mismatches([base, *others], BASE)
    assert "SemiMeanTeacherTrainer" in sentence and "labelled_batch_size 6 against 12" in sentence


def test_crossval_keeps_trainings_of_whole_batches_that_began_before_half_of_a_batch(folders):
    plans = read_json(folders.preprocessed / "tiny.json")
    plans["configurations"]["2d"]["batch_size"] = 8
    write_json(folders.preprocessed / "tiny.json", plans)
    unified = replace(fake_job(folders, "SemiUnifiedTrainer"), fold="all")
    labelled, pool = folders.labelled_cases(), unified.unlabelled_cases(case_as_patient)
    whole = {"labelled_batch_size": 8, "unlabelled_batch_size": 8, "consistency_every_steps": 2}
    limit = {"unlabelled_gradient_limit": 2.0, "unlabelled_gradient_limit_at_end": 0.25}
    leave(unified, labelled, pool, variant="ours", **whole, **limit)
    assert make_jobs(folders, "tiny", ["2d"], [unified.trainer], ["all"], 1)
    leave(unified, labelled, pool, variant="ours", box_edge=0.7, **whole, **limit)
    with pytest.raises(UserError, match="box_edge"):
        make_jobs(folders, "tiny", ["2d"], [unified.trainer], ["all"], 1)


def test_differences_from_the_baseline_are_named_with_both_values(folders):
    base, ours, base_1, ours_1 = jobs_of(folders, ("0", "1"))
    for job in (base, base_1):
        leave(job, epochs=2, momentum=0.99, ramp_up="gaussian")
    leave(ours, ("b", "a"), epochs=2, momentum=0.99, ramp_up="linear", seed=3)
    assert read_matched_settings(ours) == {"epochs": 2, "momentum": 0.99, CASES: ["a", "b"]}
    assert find_mismatches([base, ours], BASE) == []  # a method's own settings are its own
    leave(ours, ("a", "c", "d", "e"), epochs=5, momentum=0.99)
    leave(ours_1, epochs=5, momentum=0.99)
    first, second = find_mismatches([base, ours, base_1, ours_1], BASE)
    assert "epochs 5 against 2 (fold 0 seed 0, fold 1 seed 0)" in first and OURS in first
    assert (
        "labelled cases 4 (only here: c, d, e) against 2 (only here: b) (fold 0 seed 0)" in second
    )
    (ours.folder / "semi_settings.json").unlink()
    (sentences,) = find_mismatches([base, ours], BASE)  # as nnU-Net's own trainers leave nothing
    assert sentences.startswith(
        f"Whether {OURS} 2d and {BASE} are matched is not known: {OURS} left"
    )
    ours.checkpoint.unlink()
    assert find_mismatches([base, ours], BASE) == []  # it was never trained
    pretraining = replace(ours, trainer="SemiPretrainTrainer")
    leave(pretraining, epochs=9, momentum=0.99)
    assert find_mismatches([base, pretraining], BASE) == []  # it makes no labels to compare


def test_plans_that_changed_after_a_training_are_refused_before_the_next(folders):
    base, _ = jobs_of(folders)
    leave(base, ("a",), **{name: TINY[name] for name in ("epochs", "steps_per_epoch")})
    assert jobs_of(folders)
    plans = read_json(folders.preprocessed / "tiny.json")
    changed = {**plans, "semi": {**TINY, "steps_per_epoch": 5, OURS: {"consistency_weight": 3.0}}}
    write_json(folders.preprocessed / "tiny.json", changed)
    with pytest.raises(
        UserError, match=r"was trained with steps_per_epoch 1 \(now 5\).*--new-plans"
    ):
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
    with pytest.raises(UserError, match=changed):  # it would continue with other settings
        jobs_of(folders)
    (ours.folder / "checkpoint_latest.pth").unlink()
    assert jobs_of(folders)  # it starts from scratch


def test_a_pool_that_changed_after_a_training_is_refused(folders):
    _, ours = jobs_of(folders)
    cases = ours.unlabelled_cases(case_as_patient)
    leave(ours, unlabelled=cases)
    assert len(cases) > 1 and jobs_of(folders)
    leave(ours, unlabelled=cases[1:])
    with pytest.raises(UserError, match=rf"unlabelled cases {len(cases) - 1} \(now {len(cases)} "):
        jobs_of(folders)
    leave(ours, unlabelled=cases[1:], filter_epochs=[])
    with pytest.raises(UserError, match="unlabelled cases"):
        jobs_of(folders)
    assert jobs_of(folders, ("1",))  # of another fold
    leave(ours, unlabelled=cases[1:], filter_epochs=[3])  # its record may be of after the filtering
    with pytest.raises(UserError, match=r"filter_epochs \[3\] \(now \[\]\)") as caught:
        jobs_of(folders)
    assert "unlabelled cases" not in str(caught.value)


def test_a_label_or_image_that_changed_after_a_training_is_refused(folders, capsys):
    _, ours = jobs_of(folders)
    cases = ours.unlabelled_cases(case_as_patient)
    fold = foresee_folds(folders)[0]
    labelled = sorted(fold["train"])
    now = {
        "labelled": read_sources(ours.case_folder(unlabelled=False), labelled),
        "unlabelled": read_sources(ours.case_folder(unlabelled=True), cases),
    }
    assert [*now["labelled"]] == labelled and [*now["unlabelled"]] == cases
    for kind, part, name in (("labelled", 1, "label"), ("unlabelled", 0, "image")):
        case = next(iter(now[kind]))
        parts = now[kind][case].split("-")
        parts[part] = "another"
        leave(ours, unlabelled=cases)
        path = ours.folder / "semi_settings.json"
        write_json(path, {**read_json(path), "sources": now})
        assert jobs_of(folders)
        changed = {**now, kind: {**now[kind], case: "-".join(parts)}}
        write_json(path, {**read_json(path), "sources": changed})
        with pytest.raises(UserError, match=rf"{name} of {case}.* Fix: move "):
            jobs_of(folders)
        (problem,) = find_outdated_trainings(folders, [ours])
        assert problem.where == str(ours) and f"{name} of {case}" in problem.what
        capsys.readouterr()
        assert main(["status", "-d", folders.raw.name, "-p", "tiny"]) == 0
        out, err = capsys.readouterr()
        assert f"{name} of {case}" in err and "next:" not in out
    fewer = {case: now["labelled"][case] for case in labelled[1:]}
    write_json(path, {**read_json(path), "sources": {**now, "labelled": fewer}})
    with pytest.raises(UserError, match=f"the side of {labelled[0]} in splits_final.json"):
        jobs_of(folders)


def test_a_model_in_a_folder_of_another_trainers_name_is_named(folders):
    _, ours = jobs_of(folders)
    leave(ours, unlabelled=ours.unlabelled_cases(case_as_patient))
    path = ours.folder / "semi_settings.json"
    write_json(path, {**read_json(path), "trainer": OURS})
    assert jobs_of(folders) and find_outdated_trainings(folders, [ours]) == []
    write_json(path, {**read_json(path), "trainer": "SemiUnifiedTrainer"})
    with pytest.raises(UserError, match="was trained by SemiUnifiedTrainer"):
        jobs_of(folders)
    (problem,) = find_outdated_trainings(folders, [ours])
    assert problem.where == str(ours.folder.parent)


def test_data_that_change_after_a_training_of_nnunet_itself_are_named(folders):
    (job,) = make_jobs(folders, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    (command,) = build_training_command(job, "cpu")
    assert command[0] == "nnUNetv2_train"
    job.checkpoint.write_bytes(b"weights")
    assert make_jobs(folders, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1) == [job]
    path = job.folder / TRAINED_FROM
    sources = read_json(path)
    for kind in ("labelled", "validation"):
        case = min(sources[kind])
        parts = sources[kind][case].split("-")
        changed = {**sources[kind], case: "-".join([parts[0], "another", *parts[2:]])}
        write_json(path, {**sources, kind: changed})
        if kind == "validation":  # to be measured again, not trained again
            assert make_jobs(folders, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1) == [job]
            assert find_outdated_trainings(folders, [job]) == []
            changed[case] = "-".join(["another", *parts[1:]])
            write_json(path, {**sources, kind: changed})
        name = "label" if kind == "labelled" else "image"
        with pytest.raises(UserError, match=f"{name} of {case}.* Fix: move "):
            make_jobs(folders, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    path.unlink()  # trained by hand, or by an earlier version
    assert make_jobs(folders, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1) == [job]


def test_a_labelled_case_that_came_after_a_training_of_all_is_refused(folders):
    ours = replace(fake_job(folders, OURS), fold="all")
    labelled = folders.labelled_cases()
    cases = ours.unlabelled_cases(case_as_patient)
    leave(ours, labelled, cases)
    assert make_jobs(folders, "tiny", ["2d"], [OURS], ["all"], 1)
    leave(ours, labelled[1:], cases)
    with pytest.raises(UserError, match=f"labelled cases {len(labelled) - 1} "):
        make_jobs(folders, "tiny", ["2d"], [OURS], ["all"], 1)


def test_trainings_of_one_trainer_that_are_not_alike_are_named(folders):
    _, ours, _, ours_1 = jobs_of(folders, ("0", "1"))
    seeded = replace(ours, plans="tiny_seed1", seed=1)
    leave(ours, ("a", "b"), ("u", "v"), consistency_weight=10.0)
    leave(seeded, ("a", "b"), ("u", "v"), consistency_weight=10.0, seed=1)
    leave(ours_1, ("a", "c"), ("u",), consistency_weight=10.0)  # folds have their own cases
    assert find_mismatches([ours, ours_1, seeded], BASE) == []
    leave(seeded, ("a", "b"), ("u", "v", "w", "x"), consistency_weight=3.0, seed=1)
    leave(ours_1, ("a", "c"), ("u",), consistency_weight=3.0)
    sentences = sorted(find_mismatches([ours, ours_1, seeded], BASE))
    first = "fold 0 seed 0"
    assert [
        sentence.removeprefix(f"The trainings of {OURS} 2d are not alike: ")
        for sentence in sentences
    ] == [
        f"consistency_weight 3.0 (fold 1 seed 0, fold 0 seed 1) against 10.0 ({first})",
        f"unlabelled cases 4 (only here: w, x) (fold 0 seed 1) against 2 ({first})",
    ]
