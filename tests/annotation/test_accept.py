"""Tests of accepting reviewed labels: rounds with an oracle, kills, undo, and bad input."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import semi_nnunet
from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import add_to_folds
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.workflows.before_start import find_raw_changes
from tests.annotation.conftest import Loop, copy_loop
from tests.conftest import no_processes


def accept(loop: Loop, *words: str) -> int:
    with no_processes():
        return main(["accept", "-d", "977", "-i", str(loop.reviewed), *words])


def labelled(loop: Loop) -> set[str]:
    return RawDataset.of(loop.raw).labelled


# ---- rounds ----


def test_two_rounds_label_cases_and_keep_the_plans(loop, capsys):
    plans = (loop.preprocessed / "nnUNetPlans.json").read_bytes()
    copy: dict[str, object] = json.loads(plans) | {"plans_name": "nnUNetPlans_seed1"}
    (loop.preprocessed / "nnUNetPlans_seed1.json").write_text(json.dumps(copy))
    earlier = Manifest(loop.arrays).present()
    first = loop.review(4, 5)
    assert accept(loop) == 0
    assert labelled(loop) == {f"phantom_{n:04d}" for n in range(6)}
    assert not list((loop.raw / "imagesUn").glob("phantom_0004*"))
    second = loop.review(6)  # the reviewed folder grows; accepted labels are skipped
    saved = str(loop.reviewed / f"{first[0]}.nii.gz")  # again, as other integers
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(saved), sitk.sitkInt32), saved)
    assert accept(loop) == 0
    assert loop.read(f"raw/{loop.raw.name}/dataset.json")["numTraining"] == 7
    assert (loop.preprocessed / "nnUNetPlans.json").read_bytes() == plans
    now = Manifest(loop.arrays).present()
    assert {*now} == labelled(loop)
    assert {case: now[case] for case in earlier} == earlier  # only new cases are computed
    assert [*Manifest(loop.preprocessed / "nnUNetPlans_2d_unlabeled").present()] == ["phantom_0007"]
    folds = loop.read(f"preprocessed/{loop.raw.name}/splits_final.json")
    assert folds[0]["val"] == ["phantom_0000", "phantom_0001"]
    assert all({*first, *second} <= {*fold["train"]} for fold in folds)
    record = loop.read(f"raw/{loop.raw.name}/annotation_rounds.json")["rounds"]
    assert [(one["labelled_before"], one["labelled_after"]) for one in record] == [(4, 6), (6, 7)]
    # nothing is stale, and preprocessing again computes and plans nothing, also derived plans
    assert not list(find_raw_changes(find_folders("977")))
    states = {path: path.stat().st_mtime_ns for path in loop.arrays.iterdir()}
    for name in ("nnUNetPlans", "nnUNetPlans_seed1"):
        capsys.readouterr()
        with no_processes():
            assert main(["preprocess", "-d", "977", "-np", "1", "-c", "2d", "-p", name]) == 0
        assert "since the fingerprint and the plans" not in "".join(capsys.readouterr())
    assert {path: path.stat().st_mtime_ns for path in loop.arrays.iterdir()} == states
    assert (loop.preprocessed / "nnUNetPlans.json").read_bytes() == plans


def test_an_accepted_case_has_the_arrays_that_preprocess_computes(loop):
    (name,) = loop.review(4)
    assert accept(loop) == 0
    ours = [(loop.arrays / f"{name}{end}").read_bytes() for end in (".b2nd", "_seg.b2nd")]
    shutil.rmtree(loop.arrays)
    with no_processes():
        assert main(["preprocess", "-d", "977", "-np", "1", "-c", "2d"]) == 0
    assert ours == [(loop.arrays / f"{name}{end}").read_bytes() for end in (".b2nd", "_seg.b2nd")]


def test_new_cases_may_validate_in_the_smallest_fold(loop):
    path = loop.preprocessed / "splits_final.json"
    folds = json.loads(path.read_text())
    folds[1]["val"].pop()
    path.write_text(json.dumps(folds))
    (name,) = loop.review(4)
    assert accept(loop, "--validate") == 0
    first, second = json.loads(path.read_text())
    assert name in second["val"] and name not in second["train"]
    assert name in first["train"] and name not in first["val"]


def test_a_new_case_of_a_validated_patient_is_not_trained_on_in_that_fold(loop):
    def patient_of(case: str) -> str:
        return "P" if case in ("phantom_0000", "phantom_0004") else case

    folds = loop.read(f"preprocessed/{loop.raw.name}/splits_final.json")
    joined = add_to_folds(folds, ["phantom_0004"], patient_of, validates=False)
    assert "phantom_0004" not in joined[0]["train"] and "phantom_0004" in joined[1]["train"]
    joined = add_to_folds(folds, ["phantom_0004"], patient_of, validates=True)
    assert "phantom_0004" in joined[0]["val"] and "phantom_0004" not in joined[1]["val"]


def test_an_unprepared_data_set_gets_its_labels_too(loop, capsys):
    shutil.rmtree(loop.preprocessed)
    loop.review(4)
    assert accept(loop) == 0
    assert "phantom_0004" in labelled(loop)
    assert not loop.preprocessed.exists()
    assert "semi_nnunet preprocess -d 977" in capsys.readouterr().out


def test_partial_labels_are_recorded(loop):
    description = json.loads((loop.raw / "dataset.json").read_text())
    first = next(name for name in description["labels"] if name != "background")
    (name,) = loop.review(4)
    with pytest.raises(UserError, match="leaves out"):  # it shows other classes
        semi_nnunet.accept("977", loop.reviewed, annotated=[first])
    label = loop.reviewed / f"{name}.nii.gz"
    image = sitk.ReadImage(str(label))
    sitk.WriteImage(sitk.Cast(image == 1, sitk.sitkUInt8), str(label))
    semi_nnunet.accept("977", loop.reviewed, annotated=[first])
    assert loop.read(f"raw/{loop.raw.name}/dataset.json")["annotated"] == {name: [first]}


def test_classes_that_were_forgotten_are_a_correction(loop):
    description = loop.read(f"raw/{loop.raw.name}/dataset.json")
    first = next(name for name in description["labels"] if name != "background")
    (name,) = loop.review(4)
    label = loop.reviewed / f"{name}.nii.gz"
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(label)) == 1, sitk.sitkUInt8), str(label))
    semi_nnunet.accept("977", loop.reviewed)
    with pytest.raises(UserError, match="--replace"):
        semi_nnunet.accept("977", loop.reviewed, annotated=[first])
    semi_nnunet.accept("977", loop.reviewed, annotated=[first], replace=True)
    assert loop.read(f"raw/{loop.raw.name}/dataset.json")["annotated"] == {name: [first]}


def test_the_last_selected_image_leaves_an_empty_selection(loop, make_trainer):
    (name,) = loop.review(4)
    path = loop.preprocessed / "semi_selected.json"
    path.write_text(json.dumps({"cases": [name]}))
    semi_nnunet.accept("977", loop.reviewed)
    assert json.loads(path.read_text())["cases"] == []  # not all images of the pool


def test_plans_stay_if_a_round_is_taken_back_after_preprocessing(loop):
    plans = (loop.preprocessed / "nnUNetPlans.json").read_bytes()
    loop.review(4)
    semi_nnunet.accept("977", loop.reviewed)
    with no_processes():
        assert main(["preprocess", "-d", "977", "-c", "3d_fullres", "-np", "1"]) == 0
        semi_nnunet.accept("977", undo=True)
        assert main(["preprocess", "-d", "977", "-c", "2d", "3d_fullres", "-np", "1"]) == 0
    assert (loop.preprocessed / "nnUNetPlans.json").read_bytes() == plans


def test_planning_again_says_what_changed_and_can_be_taken_back(loop):
    before = loop.snapshot()
    loop.review(4, 5)
    with no_processes():
        round_ = semi_nnunet.accept("977", loop.reviewed, replan=True)
    fingerprint = loop.read(f"preprocessed/{loop.raw.name}/dataset_fingerprint.json")
    assert len(fingerprint["spacings"]) == 6
    assert isinstance(round_.plan_changes, tuple)
    semi_nnunet.accept("977", undo=True)
    after = loop.snapshot()
    for name in ("nnUNetPlans.json", "dataset_fingerprint.json"):
        key = f"preprocessed/{loop.raw.name}/{name}"
        assert after[key] == before[key]


# ---- proposals ----


def test_the_changes_of_the_reviewer_are_counted(loop):
    (name,) = loop.review(4)
    loop.propose(name)
    semi_nnunet.accept("977", loop.reviewed, proposals=loop.root / "proposals")
    (record,) = loop.read(f"raw/{loop.raw.name}/annotation_rounds.json")["rounds"]
    assert record["cases"][name]["changed_voxels"] == 5


def test_untouched_proposals_are_named(loop):
    first, second = loop.review(4, 5)
    loop.propose(second)
    shutil.copy(loop.reviewed / f"{first}.nii.gz", loop.root / "proposals")
    before = loop.snapshot()
    with pytest.raises(UserError, match="proposal") as error:
        semi_nnunet.accept("977", loop.reviewed, proposals=loop.root / "proposals")
    assert [Path(problem.where).name for problem in error.value.problems] == [f"{first}.nii.gz"]
    assert loop.snapshot() == before
    semi_nnunet.accept("977", loop.reviewed, proposals=loop.root / "proposals", untouched=True)
    assert {first, second} <= labelled(loop)


def test_pseudo_labels_reviewed_in_place_are_recognised_by_their_checksums(loop):
    from semi_nnunet.preprocessing.manifest import ManifestEntry

    out = loop.root / "pool"
    (out / "parts").mkdir(parents=True)
    first = loop.propose("phantom_0004", "pool/labels")
    second = loop.propose("phantom_0005", "pool/labels")
    (out / "request.json").write_text(json.dumps({"models": [{"model": "Dataset977/MODEL"}]}))
    manifest = Manifest(out / "labels", out / "parts" / "0_of_1.jsonl")
    for path in (first, second):
        manifest.add(ManifestEntry.of(path.name[:12], "", [path], {}))
    shutil.copy(loop.root / "hidden" / second.name, second)  # only this one is reviewed
    with pytest.raises(UserError) as error:
        semi_nnunet.accept("977", out)
    assert [problem.where for problem in error.value.problems] == [str(first)]
    first.unlink()
    semi_nnunet.accept("977", out)
    (record,) = loop.read(f"raw/{loop.raw.name}/annotation_rounds.json")["rounds"]
    assert record["models"] == ["Dataset977/MODEL"] and [*record["cases"]] == ["phantom_0005"]


def test_a_round_names_the_model_of_predictions_that_were_reviewed_in_place(loop):
    loop.review(4)
    record = {"model": "Dataset977/MODEL", "the network": [1, 2, 3, 4, "digest"]}
    (loop.reviewed / "semi_predicted_from.json").write_text(json.dumps(record))
    assert accept(loop) == 0
    (round_,) = loop.read(f"raw/{loop.raw.name}/annotation_rounds.json")["rounds"]
    assert round_["models"] == ["Dataset977/MODEL"]


# ---- corrections and trainings ----


def test_a_correction_needs_replace_and_makes_its_trainings_outdated(loop):
    name = "phantom_0001"
    for fold, cases in ((0, ["phantom_0002", "phantom_0003"]), (1, ["phantom_0000", name])):
        folder = loop.results / f"SemiBaselineTrainer__nnUNetPlans__2d/fold_{fold}"
        folder.mkdir(parents=True)
        (folder / "checkpoint_final.pth").write_bytes(b"weights")
        record = {"cases": {"labelled": cases}}
        (folder / "semi_settings.json").write_text(json.dumps(record))
        stock = loop.results / f"nnUNetTrainer__nnUNetPlans__2d/fold_{fold}"  # records nothing
        stock.mkdir(parents=True)
        (stock / "checkpoint_final.pth").write_bytes(b"weights")
    loop.reviewed.mkdir()
    source = sitk.ReadImage(str(loop.raw / "labelsTr" / f"{name}.nii.gz"))
    voxels = sitk.GetArrayFromImage(source)
    voxels.reshape(-1)[:3] = 1 - np.minimum(voxels.reshape(-1)[:3], 1)
    image = sitk.GetImageFromArray(voxels)
    image.CopyInformation(source)
    sitk.WriteImage(image, str(loop.reviewed / f"{name}.nii.gz"))
    before = loop.snapshot()
    with pytest.raises(UserError, match="--replace"):
        semi_nnunet.accept("977", loop.reviewed)
    assert loop.snapshot() == before
    round_ = semi_nnunet.accept("977", loop.reviewed, replace=True)
    assert round_.corrected == (name,)
    models = ("SemiBaselineTrainer__nnUNetPlans__2d", "nnUNetTrainer__nnUNetPlans__2d")
    assert round_.outdated == tuple(f"{model}/fold_1" for model in models)
    (record,) = loop.read(f"raw/{loop.raw.name}/annotation_rounds.json")["rounds"]
    assert record["cases"][name]["changed_voxels"] == 3
    assert not list(find_raw_changes(find_folders("977")))
    loop.review(4)
    assert len(semi_nnunet.accept("977", loop.reviewed).outdated) == 4
    semi_nnunet.accept("977", undo=True)


def test_a_running_training_keeps_its_data(loop):
    from semi_nnunet.util.lock import held

    loop.review(4)
    fold = loop.results / "SemiBaselineTrainer__nnUNetPlans__2d/fold_0"
    with held(fold / ".semi_training.lock"), pytest.raises(UserError, match="trains"):
        semi_nnunet.accept("977", loop.reviewed)
    assert "phantom_0004" not in labelled(loop)


def test_a_training_that_starts_while_cases_are_preprocessed_keeps_its_data(loop, monkeypatch):
    from semi_nnunet.annotation import accept as under_test
    from semi_nnunet.util.lock import held

    loop.review(4)
    before, preprocess = loop.snapshot(), under_test.preprocess_cases
    fold = loop.results / "SemiBaselineTrainer__nnUNetPlans__2d/fold_0"
    with ExitStack() as stack:

        def start_training(*args, **options):
            stack.enter_context(held(fold / ".semi_training.lock"))
            return preprocess(*args, **options)

        monkeypatch.setattr(under_test, "preprocess_cases", start_training)
        with pytest.raises(UserError, match="trains"):
            semi_nnunet.accept("977", loop.reviewed)
    assert loop.snapshot() == before


# ---- undo ----


def test_undo_restores_every_byte(loop):
    loop.review(4)
    assert accept(loop) == 0
    middle = loop.snapshot()
    correction = loop.propose("phantom_0004", "reviewed")
    assert correction.parent == loop.reviewed
    loop.review(5, 6)
    assert accept(loop, "--replace", "--validate") == 0
    assert loop.snapshot() != middle
    assert main(["accept", "-d", "977", "--undo"]) == 0
    assert loop.snapshot() == middle
    assert not list(find_raw_changes(find_folders("977")))
    assert main(["accept", "-d", "977", "--undo"]) == 2  # only the last round


def test_a_lost_record_of_the_rounds_loses_no_round(loop):
    loop.review(4)
    assert accept(loop) == 0
    record = loop.raw / "annotation_rounds.json"
    record.write_bytes(record.read_bytes()[:20])
    before = loop.snapshot()
    loop.review(5)
    with pytest.raises(UserError, match="restore it from a backup"):
        semi_nnunet.accept("977", loop.reviewed)
    assert loop.snapshot() == before
    record.unlink()
    assert accept(loop) == 0
    (entry,) = loop.read(f"raw/{loop.raw.name}/annotation_rounds.json")["rounds"]
    assert entry["round"] == 2
    semi_nnunet.accept("977", undo=True)
    assert labelled(loop) == {f"phantom_{n:04d}" for n in range(5)}


def test_undo_refuses_to_lose_later_edits(loop):
    (name,) = loop.review(4)
    assert accept(loop) == 0
    shutil.copy(loop.propose(name), loop.raw / "labelsTr")
    before = loop.snapshot()
    with pytest.raises(UserError, match="changed after the round"):
        semi_nnunet.accept("977", undo=True)
    assert loop.snapshot() == before


def test_undo_keeps_cases_that_were_preprocessed_later(loop):
    loop.review(4)
    assert accept(loop) == 0
    manifest = Manifest(loop.arrays)
    entry = manifest.read()["phantom_0000"]
    manifest.add(entry)
    semi_nnunet.accept("977", undo=True)
    cases = [json.loads(line)["case"] for line in manifest.path.read_text().splitlines()]
    assert cases.count("phantom_0000") == 2 and "phantom_0004" not in cases


# ---- interruptions ----


def run_until(step: int, words: list[str], how: str) -> None:
    """Run a command that dies after a number of renames."""
    count, rename = 0, os.replace

    def replace(*args: object, **options: object) -> None:
        nonlocal count
        rename(*args, **options)  # type: ignore[arg-type]
        count += 1
        if count == step and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif count == step:
            raise OSError(28, "No space left on device")

    os.replace = replace  # type: ignore[assignment]
    with no_processes():
        os._exit(main(words))


def interrupt(step: int, words: list[str], how: str) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=run_until, args=(step, words, how))
    process.start()
    process.join()
    return process.exitcode


def interrupted_everywhere(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, step_size: int = 1
) -> tuple[int, set[str]]:
    """Interrupt accepting and undoing at each rename, and require the same end as without."""
    whole = copy_loop(template, tmp_path / "whole", monkeypatch)
    before = whole.snapshot()
    whole.review(4, 5)
    assert accept(whole) == 0
    expected, steps, middle = without_times(whole.snapshot()), 0, set[str]()
    for step in range(1, 200, step_size):
        loop = copy_loop(template, tmp_path / f"{how}_{step}", monkeypatch)
        loop.review(4, 5)
        words = ["accept", "-d", "977", "-i", str(loop.reviewed)]
        code = interrupt(step, words, how)
        state = loop.snapshot()
        if code == 0:
            break
        steps, first = steps + 1, before
        middle.add("unchanged" if state == before else "changed")
        if steps % 4 == 0 and list((loop.raw / ".annotation").glob("round_*/journal.json")):
            phase = json.loads(next((loop.raw / ".annotation").glob("*/journal.json")).read_text())
            refused = phase["phase"] == "commit"
            with no_processes():
                assert main(["preprocess", "-d", "977", "-c", "2d", "-np", "1"]) == 2 * refused
            if not refused and "phantom_0004" not in labelled(loop):
                first = loop.snapshot()  # with the times of this copy
        assert accept(loop) == 0
        assert without_times(loop.snapshot()) == expected, step
        words = ["accept", "-d", "977", "--undo"]
        if interrupt(step, words, how) != 0:
            main(words)
        assert without_states(loop.snapshot()) == without_states(first), step
        shutil.rmtree(loop.root)
    return steps, middle


def without_states(snapshot: dict[str, bytes]) -> dict[str, object]:
    """Leave out times and inodes of files in the records of the check, which are refreshed."""
    result: dict[str, object] = dict(snapshot)
    for name in snapshot:
        if name.endswith("semi_checked.jsonl"):
            lines = [json.loads(line) for line in snapshot[name].splitlines()]
            result[name] = [{k: v for k, v in one.items() if k != "records"} for one in lines]
    return result


def without_times(snapshot: dict[str, bytes]) -> dict[str, object]:
    """Leave out times and places of files in records."""
    result: dict[str, object] = {}
    for name, content in snapshot.items():
        if name.endswith("annotation_rounds.json"):
            rounds = json.loads(content)["rounds"]
            result[name] = [{k: v for k, v in one.items() if k != "when"} for one in rounds]
        elif name.endswith(".manifest.jsonl"):
            lines = [json.loads(line) for line in content.splitlines()]
            result[name] = [{k: v for k, v in one.items() if k != "when"} for one in lines]
        elif name.endswith("semi_checked.jsonl"):
            lines = [json.loads(line) for line in content.splitlines()]
            result[name] = sorted((one["subset"], one["case"]) for one in lines)
        elif "/semi_" not in name and "/domain_check" not in name:
            result[name] = content
    return result


@pytest.mark.slow
def test_a_kill_at_any_moment_is_finished_by_the_same_command(loop_template, tmp_path, monkeypatch):
    steps, middle = interrupted_everywhere(loop_template, tmp_path, monkeypatch, "kill")
    assert steps > 15 and middle == {"unchanged", "changed"}


def test_an_error_of_the_disk_is_finished_by_the_same_command(loop_template, tmp_path, monkeypatch):
    steps, _ = interrupted_everywhere(loop_template, tmp_path, monkeypatch, "error", step_size=9)
    assert steps > 1


def test_an_interrupted_round_is_refused_by_others(loop, capsys):
    from semi_nnunet.annotation import transaction

    loop.review(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "move_file", stop)
        with pytest.raises(KeyboardInterrupt):
            semi_nnunet.accept("977", loop.reviewed)
    assert main(["preprocess", "-d", "977"]) == 2
    assert "semi_nnunet accept" in capsys.readouterr().err
    assert list(find_raw_changes(find_folders("977")))
    assert main(["accept", "-d", "977"]) == 0  # the labels are not needed any more
    assert "phantom_0004" in labelled(loop)


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "content", ["", '{"phase": "do', "{}", '{"phase": "done", "changes": [3]}']
)
def test_a_damaged_journal_is_named_with_what_to_do(loop, content, capsys):
    loop.review(4)
    assert accept(loop) == 0
    (journal,) = loop.raw.glob(".annotation/round_*/journal.json")
    journal.write_text(content, encoding="utf-8")
    loop.review(5)
    for command in (["accept", "-i", str(loop.reviewed)], ["accept", "--undo"]):
        assert main([command[0], "-d", "977", *command[1:]]) == 2
        error = capsys.readouterr().err
        assert "backup" in error and str(journal.parent) in error
    shutil.rmtree(journal.parent)
    assert accept(loop) == 0
    assert {"phantom_0004", "phantom_0005"} <= set(labelled(loop))


# ---- bad input ----


def test_every_bad_label_is_named_in_one_pass_and_nothing_moves(loop):
    good, shifted, floats, unknown = loop.review(4, 5, 6, 7)
    folder = loop.reviewed
    image = sitk.ReadImage(str(folder / f"{shifted}.nii.gz"))
    image.SetOrigin((30.0, 0.0, 0.0))
    sitk.WriteImage(image, str(folder / f"{shifted}.nii.gz"))
    image = sitk.ReadImage(str(folder / f"{floats}.nii.gz"), sitk.sitkFloat32)
    sitk.WriteImage(image * 0.5, str(folder / f"{floats}.nii.gz"))
    image = sitk.ReadImage(str(folder / f"{unknown}.nii.gz"))
    sitk.WriteImage(image + 9, str(folder / f"{unknown}.nii.gz"))
    shutil.copy(folder / f"{good}.nii.gz", folder / "phantom_0000.nii.gz")  # labelled already
    shutil.copy(folder / f"{good}.nii.gz", folder / "phantom_0008.nii.gz")  # a test case
    shutil.copy(folder / f"{good}.nii.gz", folder / "patient_7.nii.gz")  # somebody else's
    shutil.copy(folder / f"{good}.nii.gz", folder / f"{good}_0000.nii.gz")  # an image
    sitk.WriteImage(sitk.ReadImage(str(folder / f"{good}.nii.gz")), str(folder / f"{good}.nrrd"))
    (folder / "phantom_0003.mha").write_bytes(b"")
    (folder / "review.csv").write_text("case\n")  # a table of the review is no label
    before = loop.snapshot()
    with pytest.raises(UserError) as error:
        semi_nnunet.accept("977", folder)
    named = {Path(problem.where).name for problem in error.value.problems}
    assert named == {
        f"{shifted}.nii.gz", f"{floats}.nii.gz", f"{unknown}.nii.gz", "phantom_0000.nii.gz",
        "phantom_0008.nii.gz", "patient_7.nii.gz", f"{good}_0000.nii.gz", f"{good}.nrrd",
        "phantom_0003.mha",
    }  # fmt: skip
    assert loop.snapshot() == before and not (loop.raw / ".annotation").exists()


@pytest.mark.parametrize(("subset", "case"), [("Ts", "phantom_0008"), ("Tr", "phantom_0000")])
def test_a_case_in_two_places_is_refused(loop, subset, case):
    shutil.copy(loop.raw / f"images{subset}" / f"{case}_0000.nii.gz", loop.raw / "imagesUn")
    (good,) = loop.review(4)
    (loop.reviewed / f"{good}.nii.gz").rename(loop.reviewed / f"{case}.nii.gz")
    with pytest.raises(UserError) as error:
        semi_nnunet.accept("977", loop.reviewed)
    assert [Path(problem.where).name for problem in error.value.problems] == [f"{case}.nii.gz"]
    assert "also" in error.value.problems[0].what


@pytest.mark.parametrize("defect", ["half", "image", "empty"])
def test_a_file_that_is_no_label_is_named(loop, defect):
    (name,) = loop.review(4)
    path = loop.reviewed / f"{name}.nii.gz"
    if defect == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif defect == "empty":
        path.write_bytes(b"")
    else:
        shutil.copy(loop.raw / "imagesUn" / f"{name}_0000.nii.gz", path)
    before = loop.snapshot()
    with pytest.raises(UserError) as error:
        semi_nnunet.accept("977", loop.reviewed)
    assert {Path(problem.where).name for problem in error.value.problems} == {path.name}
    assert loop.snapshot() == before


def test_labels_that_would_be_overlooked_are_named(loop):
    _, second, third = loop.review(4, 5, 6)
    (loop.reviewed / f"{second}.nii.gz").rename(loop.reviewed / f"{second}.NII.GZ")
    (loop.reviewed / "of a colleague").mkdir()
    (loop.reviewed / f"{third}.nii.gz").rename(loop.reviewed / f"of a colleague/{third}.nii.gz")
    (loop.reviewed / "phantom_0007.nii.gz").mkdir()
    (loop.reviewed / "notes").mkdir()
    before = loop.snapshot()
    with pytest.raises(UserError) as error:
        semi_nnunet.accept("977", loop.reviewed)
    named = {Path(problem.where).name for problem in error.value.problems}
    assert named == {f"{second}.NII.GZ", "of a colleague", "phantom_0007.nii.gz"}
    assert loop.snapshot() == before


def test_a_folder_without_labels_is_refused(loop):
    loop.reviewed.mkdir()
    with pytest.raises(UserError, match="holds no label"):
        semi_nnunet.accept("977", loop.reviewed)
    with pytest.raises(UserError, match="no folder"):
        semi_nnunet.accept("977", loop.root / "elsewhere")
    with pytest.raises(UserError, match="-i"):
        semi_nnunet.accept("977")
    with pytest.raises(UserError, match="no round"):
        semi_nnunet.accept("977", undo=True)


def test_a_label_that_changes_after_its_check_is_refused(loop, monkeypatch):
    from semi_nnunet.annotation import accept as accepting

    (name,) = loop.review(4)
    check = accepting.check_labels

    def check_then_edit(*args: object) -> object:
        result = check(*args)  # type: ignore[arg-type]
        shutil.copy(loop.propose(name), loop.reviewed)
        return result

    monkeypatch.setattr(accepting, "check_labels", check_then_edit)
    before = loop.snapshot()
    with pytest.raises(UserError, match="changed"):
        semi_nnunet.accept("977", loop.reviewed)
    assert loop.snapshot() == before
