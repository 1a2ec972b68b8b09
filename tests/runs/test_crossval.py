"""Lists of jobs: what they consist of, what is refused, and a whole one on the phantom."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.data.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.data.patients import itself
from semi_nnunet.runs import status
from semi_nnunet.runs.crossval import make_jobs
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.folds import all_folds
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.local import Board, Resources, run_jobs
from semi_nnunet.runs.progress import epoch_times, seconds_left
from semi_nnunet.runs.status import in_all, reason_in
from semi_nnunet.runs.trainings import asked_jobs, found_jobs, note_asked
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.lock import held
from tests.runs.tiny import TINY, trainings_with, wait_for

TRAINERS = ["SemiBaselineTrainer", "SemiMeanTeacherTrainer"]


def test_a_job_for_every_trainer_configuration_fold_and_seed(folders):
    jobs = make_jobs(folders, "tiny", ["2d", "3d_fullres"], TRAINERS, ["0", "1"], 2)
    assert len(set(jobs)) == 16
    assert {job.plans for job in jobs} == {"tiny", "tiny_seed1"}
    seeded = read_json(folders.preprocessed / "tiny_seed1.json")
    assert seeded["semi"] == {**TINY, "seed": 1} and seeded["plans_name"] == "tiny_seed1"
    assert make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)  # written before, the same
    assert len(make_jobs(folders, "tiny", ["2d"] * 2, TRAINERS[:1] * 2, ["0", "0"], 1)) == 1


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
    with pytest.raises(UserError, match="every seed would be the same training"):
        make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)


def test_test_cases_without_labels_are_named_before_training(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in ("imagesTs/a_0000", "imagesTs/b_0000", "labelsTs/a"):
        (raw / f"{name}.nii.gz").parent.mkdir(parents=True, exist_ok=True)
        (raw / f"{name}.nii.gz").touch()
    other = replace(folders, raw=raw)
    with pytest.raises(UserError, match=r"labelsTs.*no labels of 1 cases of imagesTs: b"):
        make_jobs(other, "tiny", ["2d"], TRAINERS, ["0"], 1)
    (raw / "labelsTs" / "a.nii.gz").rename(raw / "labelsTs" / ".DS_Store")
    assert other.test_labels is None  # what a file manager leaves is no label
    assert make_jobs(other, "tiny", ["2d"], TRAINERS, ["0"], 1)


def test_all_that_is_wrong_is_said_before_anything_runs(folders):
    with pytest.raises(UserError) as caught:
        make_jobs(folders, "tiny", ["2D"], ["SemiMeanTeecherTrainer"], ["7", "01", "all"], 1)
    said = str(caught.value)
    assert "did you mean 'SemiMeanTeacherTrainer'?" in said and "did you mean '2d'?" in said
    assert "fold '7': there are 5 folds" in said and "fold '01'" in said
    with pytest.raises(UserError, match="does not exist"):
        make_jobs(folders, "nowhere", ["2d"], TRAINERS, ["0"], 1)


def test_folds_are_of_whole_patients_for_nnunets_own_trainers_too(folders, tmp_path):
    """nnU-Net's trainer takes the file that is there."""
    copy = Path(shutil.copytree(folders.preprocessed, tmp_path / "copy" / "Dataset999_Copy"))
    here = replace(folders, preprocessed=copy, raw=tmp_path)
    (copy / "splits_final.json").unlink(missing_ok=True)
    make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    assert not (copy / "splits_final.json").exists()  # nnU-Net makes its own
    cases = sorted(path.name[:-7] for path in (copy / "gt_segmentations").iterdir())
    pair = "|".join(map(re.escape, cases[:2]))
    description = {**read_json(copy / "dataset.json"), "patient": f"(?=(?:{pair})$)(.)|.+"}
    write_json(copy / "dataset.json", description)
    with pytest.raises(UserError, match="fold '4': there are 4 folds"):
        make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["4"], 1)
    make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)
    assert not (copy / "splits_final.json").exists()
    make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["3"], 1)
    validation = sorted(sorted(fold["val"]) for fold in read_json(copy / "splits_final.json"))
    assert validation == sorted([cases[:2], *([case] for case in cases[2:])])
    torn = {"train": [cases[0]], "val": [cases[1]]}
    write_json(copy / "splits_final.json", [torn])
    with pytest.raises(UserError, match="fold 0 trains and validates on"):
        make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    assert make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)
    with pytest.raises(UserError, match=r"'patient' is absent, in the preprocessed data set '\(\?"):
        make_jobs(replace(here, raw=folders.raw), "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)


def test_folds_that_are_made_anew_validate_on_no_pseudo_labels(folders, tmp_path):
    copy = Path(shutil.copytree(folders.preprocessed, tmp_path / "copy" / "Dataset999_Copy"))
    here = replace(folders, preprocessed=copy)
    cases = sorted(path.name[:-7] for path in (copy / "gt_segmentations").iterdir())
    write_json(copy / PSEUDO_LABELLED_FILE, cases[3:])
    (copy / "splits_final.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="fold '3': there are 3 folds"):
        make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["3"], 1)
    make_jobs(here, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    folds = read_json(copy / "splits_final.json")
    assert sorted(case for fold in folds for case in fold["val"]) == cases[:3]
    assert all({*cases[3:]} <= {*fold["train"]} for fold in folds)


def test_what_was_trained_with_other_folds_is_not_taken_for_done(folders, tmp_path):
    """Nor does it teach: it has seen what its pupil validates on."""
    copy = Path(shutil.copytree(folders.preprocessed, tmp_path / "copy" / "Dataset999_Copy"))
    here = replace(folders, preprocessed=copy, results=tmp_path / "results" / copy.name)
    a, b, *rest = sorted(path.name[:-7] for path in (copy / "gt_segmentations").iterdir())
    write_json(copy / "splits_final.json", [{"train": [a, *rest], "val": [b]}])
    (teacher,) = make_jobs(here, "tiny", ["2d"], ["SemiMeanTeacherTrainer"], ["0"], 1)
    teacher.folder.mkdir(parents=True)
    teacher.checkpoint.touch()
    pool = teacher.unlabelled_cases(itself)
    for labelled, unlabelled, refused in (
        ([a], pool, False),
        ([a, b], pool, True),
        ([a], [b], True),
    ):
        seen = {"cases": {"labelled": labelled, "unlabelled": unlabelled}}
        write_json(teacher.folder / "semi_settings.json", seen)
        for trainer in ("SemiMeanTeacherTrainer", "SemiDistillationTrainer"):
            if refused:
                with pytest.raises(
                    UserError, match=f"SemiMeanTeacher.* has in validation now: {b}"
                ):
                    make_jobs(here, "tiny", ["2d"], [trainer], ["0"], 1)
            else:
                assert make_jobs(here, "tiny", ["2d"], [trainer], ["0"], 1)
        assert make_jobs(here, "tiny", ["2d"], ["SemiDistillationTrainer"], ["all"], 1)


def test_plans_of_a_seed_that_was_trained_are_not_replaced_by_others(folders):
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": 3}})
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)  # nothing was trained: written anew
    assert read_json(folders.preprocessed / "tiny_seed1.json")["semi"]["epochs"] == 3
    trained = folders.results / "SemiBaselineTrainer__tiny_seed1__2d" / "fold_0"
    trained.mkdir(parents=True)
    (trained / "checkpoint_latest.pth").touch()
    write_json(folders.preprocessed / "tiny.json", plans)
    with pytest.raises(UserError, match="differs from tiny by more than the seed"):
        make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)


def test_a_rule_that_came_later_does_not_stop_what_was_begun(folders):
    """Planning again writes its value; what was trained without keeps its plans."""
    plans = read_json(folders.preprocessed / "tiny.json")
    make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
    before = read_json(folders.preprocessed / "tiny_seed1.json")
    trained = folders.results / "SemiBaselineTrainer__tiny_seed1__2d" / "fold_0"
    trained.mkdir(parents=True)
    (trained / "checkpoint_latest.pth").touch()
    ruled = {"SemiFixMatchTrainer": {"2d": {"class_wise_threshold": True}}, "ramp_up_steps": 3}
    for given in ({}, {"ramp_up_steps": 3}):
        semi = {**plans["semi"], **ruled}
        planned = {"given": {**plans["semi"], **given}, "semi": semi}
        again = {**plans, "semi": semi, "semi_planned": planned}
        write_json(folders.preprocessed / "tiny.json", again)
        if given:  # by a person
            with pytest.raises(UserError, match="differs from tiny by more than the seed"):
                make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
        else:
            make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 2)
        assert read_json(folders.preprocessed / "tiny_seed1.json") == before
    write_json(folders.preprocessed / "tiny.json", plans)


def test_jobs_end_to_end_and_again(folders, capsys):
    words = [
        "crossval",
        "-d",
        folders.raw.name,
        "-c",
        "2d",
        "-p",
        "tiny",
        "-f",
        "0",
        "--seeds",
        "2",
    ]
    assert main([*words, "-tr", "SemiMeanTeacherTrainer", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "2 jobs, 0 done before" in said and "[  2/2]" in said and "all done" in said
    jobs = found_jobs(folders, "tiny")
    assert [(job.seed, job.is_done) for job in jobs] == [(0, True), (1, True)]
    for job in jobs:
        for path in job.tables().values():
            with path.open() as file:
                assert {"dice", "hd95_edge_mm"} <= set(next(csv.DictReader(file)))
        assert len(job.history().rows) == 2
    before = {job: (job.folder / "checkpoint_final.pth").stat().st_mtime_ns for job in jobs}
    assert main([*words, "-tr", "SemiMeanTeacherTrainer", "--device", "cpu"]) == 0
    assert "2 done before" in capsys.readouterr().out
    assert before == {j: (j.folder / "checkpoint_final.pth").stat().st_mtime_ns for j in jobs}
    for of_plans in (["-p", "tiny"], []):
        assert main(["status", "-d", folders.raw.name, *of_plans]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "tiny:",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 0: done",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 1: done",
            "  2 of 2 done",
        ]


def test_steps_one_at_a_time_and_a_case_that_came_later(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in ("imagesTs", "labelsTs"):
        shutil.copytree(folders.raw / name, raw / name)
    own = replace(folders, raw=raw)

    def run(*steps):
        (outcome,) = run_jobs(
            make_jobs(own, "tiny", ["2d"], TRAINERS[:1], ["0"], 1, steps=steps),
            Resources("cpu", (), 1, 1),
        )
        return outcome

    with pytest.raises(UserError, match="none of the jobs is trained"):
        run("predict")
    assert run("train").state == "done" and run("train").state == "done before"
    assert "needs its step 'predict' first" in run("evaluate").reason
    assert run("predict").state == "done"
    (job,) = found_jobs(own, "tiny")
    test = job.tables()["test"]
    label = next((raw / "labelsTs").iterdir())
    shutil.copy(label, label.with_name(f"of_no_image_{label.name}"))  # it is no fault
    assert not test.exists() and run("evaluate").state == "done" and job.is_done
    cases = job.predicted_cases("test")
    for name in ("imagesTs", "labelsTs"):
        one = next((raw / name).iterdir())
        shutil.copy(one, one.with_name(f"later_{one.name}"))
    assert not job.is_tested and not replace(job, steps=("evaluate",)).is_done
    assert "needs its step 'predict' first" in run("evaluate").reason
    before = (job.folder / "checkpoint_final.pth").stat().st_mtime_ns
    assert run("train", "predict", "evaluate").state == "done"
    assert len(job.predicted_cases("test")) == len(cases) + 1 and test.is_file()
    assert before == (job.folder / "checkpoint_final.pth").stat().st_mtime_ns
    with pytest.raises(UserError, match="did you mean 'train'"):
        make_jobs(own, "tiny", ["2d"], TRAINERS[:1], ["0"], 1, steps=["trian"])


def test_status_names_what_was_asked_for_and_is_not_begun(folders, monkeypatch, capsys):
    monkeypatch.setattr("semi_nnunet.runs.launching.launch", lambda launcher, work: 1)
    words = ["-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0", "1", "-tr", TRAINERS[1]]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    for cannot in (["--device", "cuda"], ["--launcher", "slurm"]):
        assert main(["crossval", *words, *cannot]) == 2  # and nothing is asked for
        assert "found none" in capsys.readouterr().err
    assert main(["status", "-d", folders.raw.name, "-p", "tiny"]) == 0
    assert "nothing was trained yet" in capsys.readouterr().out
    assert main(["crossval", *words, "--device", "cpu"]) == 1
    capsys.readouterr()
    for of_plans in (["-p", "tiny"], []):
        assert main(["status", "-d", folders.raw.name, *of_plans]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "tiny:",
            "  SemiMeanTeacherTrainer 2d fold 0 seed 0: not begun",
            "  SemiMeanTeacherTrainer 2d fold 1 seed 0: not begun",
            "  0 of 2 done",
        ]


def test_epochs_of_a_training_of_nnunets_own_trainer_are_told(folders, capsys):
    job = fake_job(folders, "nnUNetTrainer")
    job.folder.mkdir(parents=True)

    def log(number, *epochs):
        lines = (
            f"10:00:00.1: Epoch {n} \n10:00:00.1: Epoch time: {100 + n}.5 s \n" for n in epochs
        )
        (job.folder / f"training_log_{number}.txt").write_text("".join(lines))
        os.utime(job.folder / f"training_log_{number}.txt", (number, number))

    log(1, 0, 1, 2, 3)
    for damage in (b"epoch,seconds\n0,\xff", b"", b"epoch,seconds\n0,soon\n"):
        (job.folder / "semi_history.csv").write_bytes(damage)
        assert epoch_times(job) == [100.5, 101.5, 102.5, 103.5]  # as the log says
        with pytest.raises(UserError, match=r"semi_history\.csv must"):
            job.history()
    (job.folder / "semi_history.csv").unlink()
    log(2, 2, 3, 4)  # continued from the checkpoint of epoch 2
    assert epoch_times(job) == [100.5, 101.5, 102.5, 103.5, 104.5] and seconds_left(job) is None
    assert main(["status", "-d", folders.raw.name]) == 0
    assert f"{job}: begun; 5 epochs done, 2 min each\n" in capsys.readouterr().out
    log(3, 0)  # anew
    assert epoch_times(job) == [100.5]


def test_status_says_how_long_all_that_is_left_will_take(monkeypatch):
    """A trainer's own mean, else that of any trainer of the configuration."""

    def like(trainer, configuration, epochs, left=None, begun=False):
        trained = left is None and epochs > 0
        job = Mock(trainer=trainer, configuration=configuration, is_done=trained)
        job.is_trained, job.left, job.took = trained, left, [60.0] * epochs
        job.is_begun = epochs > 0 or begun
        return job

    monkeypatch.setattr(status, "seconds_left", lambda job: job.left)
    monkeypatch.setattr(status, "epoch_times", lambda job: job.took)

    jobs = [like("A", "2d", 10), like("A", "2d", 20), like("B", "2d", 30), like("A", "2d", 0)]
    assert in_all(jobs[:3]) == "3 of 3 done"
    assert in_all(jobs) == "3 of 4 done; about 15 min of training left, one after another"
    jobs += [like("C", "2d", 0), like("B", "2d", 2, left=300.0)]
    assert "3 of 6 done; about 40 min of training left" in in_all(jobs)
    jobs.append(like("A", "3d_fullres", 0))
    assert "; at least about 40 min of training left" in in_all(jobs)
    assert in_all(jobs[-1:]) == "0 of 1 done"
    stock_under_way = like("A", "2d", 0, begun=True)
    assert "; at least about 15 min of" in in_all([*jobs[:4], stock_under_way])
    all_epochs_done = like("A", "2d", 3, left=0.0)
    assert "; about 0 s of training left" in in_all([*jobs[:3], all_epochs_done])


def test_a_log_file_says_now_and_then_how_long_each_job_will_take(folders, monkeypatch):
    screen = io.StringIO()
    board, job = Board(1, screen), fake_job(folders, "A")
    progress = board.start(job, "nnUNetv2_train")
    progress.feed("3 of 60 epochs done, about 9 min left")
    board.refresh()
    assert "left" not in screen.getvalue()
    monkeypatch.setattr("semi_nnunet.runs.local.SAY_EVERY_S", 0.0)
    board.refresh()
    assert f"{job}: nnUNetv2_train epoch 3 of 60, about 9 min left\n" in screen.getvalue()


def test_a_line_of_the_screen_is_one_row(folders):
    """A wrapped one would be wiped by half, and its rest stay, each second."""
    primary, secondary = os.openpty()
    termios.tcsetwinsize(secondary, (24, 60))
    with os.fdopen(secondary, "w") as screen:
        board = Board(1, screen)
        board.start(fake_job(folders, "SemiUncertaintyAwareTrainer"), "nnUNetv2_train").feed(
            "3 of 60 epochs done, Dice of patches 0.64, about 9 min left"
        )
        for _ in range(3):
            board.refresh()
    parts = []
    with suppress(OSError):  # EIO: nobody writes any more, and all was read
        while part := os.read(primary, 10_000):
            parts.append(part)
    os.close(primary)
    rows = re.split(r"\n|\x1b\[1F\x1b\[J", b"".join(parts).decode().replace("\r", ""))
    assert board.live and len([row for row in rows if row]) == 3
    assert all(len(row) < 60 for row in rows)


def test_steps_that_have_nothing_to_begin_with_are_refused(folders):
    for steps in (["predict"], ["evaluate"], ["predict", "evaluate"]):
        with pytest.raises(
            UserError, match=r"none of the jobs is trained\. Fix: add the step train"
        ):
            make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 1, steps=steps)
    assert not [*folders.results.glob("*__*/fold_*")]


def test_what_an_earlier_crossval_still_works_on_is_not_forgotten(folders, capsys):
    jobs = make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0", "1"], 1)
    note_asked(folders, "tiny", jobs)
    with held(jobs[0].lock):
        note_asked(folders, "tiny", jobs[-1:])
        assert asked_jobs(folders, "tiny") == jobs
    note_asked(folders, "tiny", jobs[-1:])
    assert asked_jobs(folders, "tiny") == jobs[-1:]


def test_without_folds_those_are_trained_that_there_are(folders, tmp_path):
    assert all_folds(folders) == ["0", "1", "2", "3", "4"]
    copy = Path(shutil.copytree(folders.preprocessed, tmp_path / "copy" / "Dataset999_Copy"))
    description = read_json(copy / "dataset.json")
    (copy / "splits_final.json").unlink(missing_ok=True)
    for labelled, folds in ((4, ["0", "1", "2", "3"]), (1, ["all"])):
        write_json(copy / "dataset.json", {**description, "numTraining": labelled})
        assert all_folds(replace(folders, preprocessed=copy)) == folds
    assert all_folds(replace(folders, preprocessed=tmp_path)) == ["0", "1", "2", "3", "4"]


def test_a_data_set_that_does_not_exist_is_named(folders, capsys):
    name = folders.raw.name
    for verb in (["status"], ["compare"], ["crossval", "-c", "2d"], ["report", "-o", "x.html"]):
        assert main([*verb, "-d", f"{name}x"]) == 2
        assert f"did you mean '{name}'?" in capsys.readouterr().err
    assert main(["crossval", "-d", name, "-c", "2d", "-p", "dataset"]) == 2
    assert "dataset.json holds no plans. Fix: choose -p from " in capsys.readouterr().err
    words = ["-d", name, "-p", "tiny", "--baseline", "SemiBaselin"]
    assert main(["report", "-o", "x.html", *words]) == 2
    assert "did you mean 'SemiBaselineTrainer'?" in capsys.readouterr().err


def fake_job(folders: Folders, trainer: str) -> Job:
    return Job(folders, trainer, "2d", "0", 0, "tiny")


def test_what_another_process_works_on_is_waited_for(folders, monkeypatch):
    """Its results are what comes next needs: the first stage of a cascade, a teacher."""
    monkeypatch.setattr("semi_nnunet.runs.local.LOOK_EVERY_S", 0.05)
    first, second, third = (fake_job(folders, name) for name in ("First", "Second", "Third"))
    begun = []
    monkeypatch.setattr(Job, "commands", lambda job, *_: begun.append(job) or iter(()))
    with ThreadPoolExecutor(1) as pool:
        needs = {second: [first]}
        with held(first.lock):
            running = pool.submit(
                run_jobs, [first, second, third], Resources("cpu", (), 2, 1), needs
            )
            wait_for(lambda: third in begun, 30)
            time.sleep(0.5)
            assert begun == [third] and not running.done()
        assert [one.state for one in running.result(30)] == ["elsewhere", "done", "done"]
    assert begun == [third, second]


def test_a_job_that_fails_is_told_and_the_others_go_on(folders, monkeypatch, capsys):
    def commands(job, device, processes):
        code = "import sys; sys.exit('no such thing')" if job.trainer == "Bad" else "print(1)"
        yield ("python", code)

    monkeypatch.setattr(Job, "commands", commands)
    monkeypatch.setattr(
        "semi_nnunet.runs.commands.arguments_of",
        lambda words, *_, **__: [sys.executable, "-c", str(words[1])],
    )
    jobs = [fake_job(folders, name) for name in ("Good", "Bad", "AlsoGood")]
    outcomes = run_jobs(jobs, Resources("cpu", (), 2, 1))
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"]
    assert "no such thing" in outcomes[1].reason and str(jobs[1].log) in outcomes[1].reason
    assert "no such thing" in jobs[1].log.read_text()
    capsys.readouterr()
    assert main(["status", "-d", folders.raw.name]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if " failed: " in line]
    assert len(said) == 1 and "Bad 2d" in said[0] and str(jobs[1].log) in said[0]
    assert "failed: python failed (exit code 1): no such thing. See " in said[0]
    trained_by_hand_since = jobs[1].folder / "training_log_2026_1_1_00_00_00.txt"
    trained_by_hand_since.parent.mkdir(parents=True, exist_ok=True)
    trained_by_hand_since.touch()
    copied_together = jobs[1].log.with_suffix(".failed").stat().st_mtime + 30
    os.utime(trained_by_hand_since, (copied_together, copied_together))
    assert main(["status", "-d", folders.raw.name]) == 0
    assert " failed: " in capsys.readouterr().out
    os.utime(trained_by_hand_since, (copied_together + 60, copied_together + 60))
    assert main(["status", "-d", folders.raw.name]) == 0
    assert " failed: " not in capsys.readouterr().out


def test_a_failure_is_said_in_a_line_with_its_reason():
    problem = Problem("x.nii.gz", "is empty", "copy it")
    for note, said in (
        ("the folder is full. Fix: free some space.\n", "the folder is full. Fix: free some space"),
        (f"{UserError('Broken:', [problem, problem])}\n", f"Broken: {problem}"),
        ("a failed (exit code 1). Its last lines:\n\nThe command was: a", "a failed (exit code 1)"),
        ("", "for an unknown reason"),
    ):
        assert reason_in(note) == said


def test_a_job_whose_folder_cannot_be_made_fails_alone(folders, monkeypatch):
    monkeypatch.setattr(Job, "commands", lambda *_: iter(()))
    bad, good = (fake_job(folders, name) for name in ("Bad", "Good"))
    bad.folder.parent.mkdir(parents=True)
    bad.folder.write_text("a file where nnU-Net's folder belongs")
    outcomes = run_jobs([bad, good], Resources("cpu", (), 1, 1))
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert str(bad.folder) in outcomes[0].reason


def test_a_job_that_another_process_works_on_is_left_to_it(folders):
    job = fake_job(folders, "SemiBaselineTrainer")
    hold = (
        "import sys, time; from pathlib import Path; from semi_nnunet.util.lock import held\n"
        "with held(Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"
    )
    lock = job.folder / ".semi_crossval.lock"
    with held(lock):
        pass
    command = [sys.executable, "-c", hold, str(lock)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        (outcome,) = run_jobs([job], Resources("cpu", (), 1, 1))
        assert outcome.state == "elsewhere" and f"process {process.pid}" in outcome.reason
    finally:
        process.kill()
        process.wait()


def test_interrupted_it_ends_its_trainings_and_goes_on_from_the_checkpoint(folders, tmp_path):
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": 400}})
    words = ["crossval", "-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0"]
    command = [sys.executable, "-m", "semi_nnunet.cli.main", *words, "-tr", TRAINERS[0]]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=file, stderr=file)
    job = fake_job(folders, TRAINERS[0])
    latest = job.folder / "checkpoint_latest.pth"
    wait_for(latest.is_file, 120)
    process.send_signal(signal.SIGTERM)  # SIGINT is ignored below a shell in the background
    try:
        assert process.wait(60) == 130, log.read_text()
    finally:
        process.kill()
    done = len(job.history().rows)
    assert 0 < done < 400 and not job.is_trained
    wait_for(lambda: not trainings_with(str(tmp_path)), 10)  # killed, they take a moment to go
    assert "--c" in next(job.commands("cpu", 1))


def test_results_alone_have_a_status(folders, tmp_path, monkeypatch, capsys):
    """Copied from elsewhere, with the raw images but nothing preprocessed."""
    shutil.copytree(folders.raw, tmp_path / "raw" / folders.raw.name)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    fold = folders.results / "SemiBaselineTrainer__tiny__2d" / "fold_0"
    (fold / "validation").mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    for state, file in (("begun", None), ("trained; predictions or", "checkpoint_final.pth")):
        if file:
            (fold / file).touch()
            write_json(fold / "validation" / "summary.json", {})
        assert main(["status", "-d", folders.raw.name]) == 0
        assert f"SemiBaselineTrainer 2d fold 0 seed 0: {state}" in capsys.readouterr().out
