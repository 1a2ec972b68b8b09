"""``prepare`` reports all problems before it writes anything, and continues interrupted work."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing import planning as existing_plans
from semi_nnunet.preprocessing import prepare
from semi_nnunet.preprocessing.cases import Case, copy_ground_truth
from semi_nnunet.preprocessing.planning import select_configurations
from semi_nnunet.preprocessing.prepare import (
    PrepareOptions,
    estimate_memory,
    prepare_for_training,
)
from semi_nnunet.raw.readers import Geometry
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.memory import GIB
from semi_nnunet.workflows.before_start import find_raw_changes
from semi_nnunet.workflows.plan import plan_dataset
from tests.data.copied import Copy, names
from tests.data.raw_datasets import make_tif, voxels, write


def test_all_problems_are_reported_before_anything_is_written(copy: Copy) -> None:
    shutil.rmtree(copy.preprocessed)
    first, second = names(copy.raw / "imagesUn")[:2]
    (copy.raw / f"imagesUn/{first}_0000.nii.gz").write_text("no image")
    labelled = names(copy.raw / "imagesTr")
    target = copy.raw / f"imagesUn/{second}_0000.nii.gz"
    shutil.copy(copy.raw / f"imagesTr/{labelled[0]}_0000.nii.gz", target)
    (copy.raw / f"labelsTr/{labelled[1]}.nii.gz").unlink()
    with pytest.raises(UserError, match="--skip-bad") as error:
        copy.prepare()
    places = [problem.where for problem in error.value.problems]
    assert places == [
        f"labelsTr/{labelled[1]}.nii.gz",
        f"imagesUn/{first}_0000.nii.gz",
        f"imagesUn: case {second}",
    ]
    assert not copy.preprocessed.exists()


def test_bad_unlabelled_cases_are_skipped_on_request(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, leaked = names(copy.raw / "imagesUn")[:2]
    (copy.raw / f"imagesUn/{bad}_0000.nii.gz").write_text("no image")
    known = copy.raw / f"imagesTr/{names(copy.raw / 'imagesTr')[0]}_0000.nii.gz"
    shutil.copy(known, copy.raw / f"imagesUn/{leaked}_0000.nii.gz")
    assert copy.prepare(skip_bad=True) == {"2d": (5, 2)}
    assert "skipped 2 bad unlabelled cases" in capsys.readouterr().out
    listed = json.loads((copy.preprocessed / "semi_skipped.json").read_text())
    assert list(listed) == [bad, leaked]
    stems = {
        p.name.split(".")[0] for p in (copy.preprocessed / "nnUNetPlans_2d_unlabeled").iterdir()
    }
    assert not stems & {bad, leaked}


def test_cases_that_were_skipped_do_not_count_as_gone(copy: Copy) -> None:
    duplicate, outlier = names(copy.raw / "imagesUn")[:2]
    known = copy.raw / f"imagesTr/{names(copy.raw / 'imagesTr')[0]}_0000.nii.gz"
    shutil.copy(known, copy.raw / f"imagesUn/{duplicate}_0000.nii.gz")
    image = 1000 + 900 * voxels(0, (12, 32, 32), np.float32)
    write(copy.raw / f"imagesUn/{outlier}_0000.nii.gz", image, (2.0, 1.0, 9.0))
    copy.prepare(skip_bad=True, skip_outliers=True)
    skipped = json.loads((copy.preprocessed / "semi_skipped.json").read_text())
    assert duplicate in skipped
    assert not list(find_raw_changes(find_folders(copy.raw.name)))
    (copy.raw / f"imagesUn/{duplicate}_0000.nii.gz").unlink()
    (problem,) = find_raw_changes(find_folders(copy.raw.name))
    assert f"{duplicate} (gone)" in problem.what


def test_without_labelled_cases_there_is_nothing_to_plan_from(copy: Copy) -> None:
    for folder in ("imagesTr", "labelsTr"):
        for path in (copy.raw / folder).iterdir():
            path.unlink()
    description = json.loads((copy.raw / "dataset.json").read_text())
    (copy.raw / "dataset.json").write_text(json.dumps({**description, "numTraining": 0}))
    with pytest.raises(UserError, match="semi_nnunet next"):
        copy.prepare()


def test_all_plans_follow_the_labelled_cases_by_their_own_planner(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(name: str, planner: str = "ExperimentPlanner") -> dict[str, Any]:
        prepare_for_training(copy.number, PrepareOptions(["2d"], name, planner))
        return dict(json.loads((copy.preprocessed / f"{name}.json").read_text()))

    def brightness(plans: dict[str, Any]) -> float:
        return float(plans["foreground_intensity_properties_per_channel"]["0"]["mean"])

    large, small = "nnUNetResEncUNetMPlans", "nnUNetPlans"
    first = prepare(large, "nnUNetPlannerResEncM")
    record = copy.preprocessed / "semi_planned_from.json"
    assert json.loads(record.read_text())["fingerprint"]  # as the fingerprint was kept
    before = brightness(first)
    for name in names(copy.raw / "imagesTr"):
        path = copy.raw / f"imagesTr/{name}_0000.nii.gz"
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) * 3, str(path))
    (copy.preprocessed / "dataset_fingerprint.json").unlink()
    assert brightness(prepare(small)) == pytest.approx(3 * before, rel=0.02)
    again = prepare(large)
    assert brightness(again) == pytest.approx(3 * before, rel=0.02)
    assert again["experiment_planner_used"] == "nnUNetPlannerResEncM"
    monkeypatch.setattr(existing_plans, "plan_experiments", None)  # nothing is planned any more
    assert prepare(large) == again


def test_plans_know_what_they_come_from(copy: Copy) -> None:
    """Of the fingerprint and dataset.json; with and without a record; also from elsewhere."""
    folder = copy.preprocessed
    path, foreign = folder / "nnUNetPlans.json", folder / "elsewhere.json"
    plans = json.loads(path.read_text())
    other = {**plans, "plans_name": "elsewhere", "experiment_planner_used": "ExperimentPlanner"}
    for configuration in other["configurations"].values():
        configuration["data_identifier"] = "elsewhere_2d"  # as in plans from another data set
    properties = {"0": {"mean": 5.0}}
    foreign.write_text(
        json.dumps({**other, "foreground_intensity_properties_per_channel": properties})
    )
    (folder / "broken.json").write_text('{"plans_name')
    (folder / "semi_planned_from.json").unlink()
    origins = existing_plans.collect_origins(folder)
    assert set(origins) == {"nnUNetPlans"}  # not those from elsewhere, which are kept as they are
    record = folder / "semi_planned_from.json"
    record.write_text(json.dumps({"plans": origins}))
    assert existing_plans.is_up_to_date(plans, path)
    fingerprint, description = folder / "dataset_fingerprint.json", folder / "dataset.json"
    facts, described = (json.loads(p.read_text()) for p in (fingerprint, description))
    channels = {"0": "another"}
    changes = [
        (fingerprint, {**facts, "spacings": [[9.0, 1.0, 1.0] for _ in facts["spacings"]]}),
        (description, {**described, "channel_names": channels}),
    ]
    for changed, content in changes:
        before = changed.read_text()
        changed.write_text(json.dumps(content))
        assert not existing_plans.is_up_to_date(plans, path)
        changed.write_text(before)
    assert existing_plans.is_up_to_date(plans, path)
    fingerprint.write_text(json.dumps(facts, indent=1))  # nnU-Net's own command made both again
    path.write_text(json.dumps(plans, indent=1))
    assert existing_plans.is_up_to_date(plans, path)
    fingerprint.unlink()
    record.unlink()
    record.write_text(json.dumps({"plans": existing_plans.collect_origins(folder)}))
    fingerprint.write_text(json.dumps(facts))
    assert not existing_plans.is_up_to_date(plans, path)  # it is unknown


def test_a_bad_labelled_case_is_never_skipped(copy: Copy) -> None:
    case = names(copy.raw / "imagesTr")[0]
    (copy.raw / f"imagesTr/{case}_0000.nii.gz").write_text("no image")
    with pytest.raises(UserError, match=case):
        copy.prepare(skip_bad=True)


def test_missing_unlabelled_images_are_reported(copy: Copy) -> None:
    shutil.rmtree(copy.raw / "imagesUn")
    with pytest.raises(UserError, match=r"imagesUn: .*absent"):
        copy.prepare()


def test_unusual_cases_cause_a_warning(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = names(copy.raw / "imagesTr")[:2]
    (test,) = (copy.raw / "imagesTs").iterdir()
    shutil.copy(copy.raw / f"imagesTr/{first}_0000.nii.gz", test)
    label = sitk.ReadImage(str(copy.raw / f"labelsTr/{second}.nii.gz")) * 0
    sitk.WriteImage(label, str(copy.raw / f"labelsTr/{second}.nii.gz"))
    assert copy.prepare() == {"2d": (5, 4)}
    warnings = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(warnings) == 3 and f"label of {second}" in warnings[2]
    assert f"voxels are 0: {second}." in warnings[0]
    assert f"(labelled: {first})" in warnings[1]


def test_running_again_does_nothing_and_logs_the_stages(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("semi_nnunet.preprocessing.cases.preprocess_case", never)
    assert copy.prepare() == {"2d": (5, 4)}
    out = capsys.readouterr().out
    assert f"checking {copy.raw}" in out and "preprocessing 2d, unlabelled: 4 cases" in out


def test_spaces_in_case_ids_work_with_nnunet(copy: Copy) -> None:
    for folder, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        old = sorted((copy.raw / folder).iterdir())[0]
        old.rename(old.with_name(f"a case{end}"))
    assert copy.prepare() == {"2d": (5, 4)}
    assert (copy.preprocessed / "nnUNetPlans_2d/a case.b2nd").is_file()


def test_planning_again_keeps_our_settings_and_names_what_was_edited(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plans_file = copy.preprocessed / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    edited = json.loads(json.dumps({**plans, "semi": {"seed": 5}}))
    edited["configurations"]["2d"]["batch_size"] = 3
    plans_file.write_text(json.dumps(edited))
    (copy.preprocessed / "dataset_fingerprint.json").unlink()

    def planned(*_: Any, overwrite_plans_name: str) -> str:
        plans_file.write_text(json.dumps(plans))
        return overwrite_plans_name

    monkeypatch.setattr(existing_plans, "extract_fingerprints", lambda *_, **__: None)
    monkeypatch.setattr(existing_plans, "plan_experiments", planned)
    copy.prepare()
    assert json.loads(plans_file.read_text())["semi"] == {"seed": 5}
    assert "2d batch_size 3" in caplog.text


@pytest.mark.parametrize("key", ["patient", "domain"])
def test_adding_patients_or_domains_later_changes_no_plans(
    key: str, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    for name in ("extract_fingerprints", "plan_experiments"):
        monkeypatch.setattr(existing_plans, name, never)
    description = json.loads((copy.raw / "dataset.json").read_text())
    for expression in ("(", "nobody"):
        (copy.raw / "dataset.json").write_text(json.dumps({**description, key: expression}))
        with pytest.raises(UserError, match=f"'{key}' must"):
            copy.prepare()
    described = {**description, key: ".+"}
    (copy.raw / "dataset.json").write_text(json.dumps(described))
    assert copy.prepare() == {"2d": (5, 4)}
    assert json.loads((copy.preprocessed / "dataset.json").read_text()) == described


def test_declaring_another_domain_later_changes_no_plans(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    for name in ("extract_fingerprints", "plan_experiments"):
        monkeypatch.setattr(existing_plans, name, never)
    described = {
        **json.loads((copy.raw / "dataset.json").read_text()),
        "unlabelled_domain": "other",
    }
    (copy.raw / "dataset.json").write_text(json.dumps(described))
    assert copy.prepare() == {"2d": (5, 4)}
    assert json.loads((copy.preprocessed / "dataset.json").read_text()) == described


def test_derived_plans_are_not_planned_again(copy: Copy) -> None:
    plans = json.loads((copy.preprocessed / "nnUNetPlans.json").read_text())
    derived = copy.preprocessed / "nnUNetPlans_cpu.json"
    derived.write_text(json.dumps({**plans, "plans_name": "nnUNetPlans_cpu"}))
    (copy.preprocessed / "dataset_fingerprint.json").unlink()
    with pytest.raises(UserError, match="from other plans"):
        prepare_for_training(copy.number, PrepareOptions(["2d"], "nnUNetPlans_cpu"))


def test_derived_plans_of_an_earlier_fingerprint_are_refused(copy: Copy) -> None:
    plan_dataset(copy.raw.name, name="nnUNetPlans_other")
    options = PrepareOptions(["2d"], "nnUNetPlans_other")
    prepare_for_training(copy.number, options)
    fingerprint = copy.preprocessed / "dataset_fingerprint.json"
    fingerprint.write_text(fingerprint.read_text() + "\n")  # as if made from other images
    plan_dataset(copy.raw.name, plans="nnUNetPlans_other", settings={"epochs": 3})
    with pytest.raises(UserError, match="from other plans"):
        prepare_for_training(copy.number, options)
    plan_dataset(copy.raw.name, name="nnUNetPlans_other")  # the advice
    prepare_for_training(copy.number, options)


def test_a_cascade_uses_the_data_of_its_first_stages(prepared_cascade: Any) -> None:
    plans = prepared_cascade().plans
    assert select_configurations(plans, None) == ["2d", "3d_fullres", "3d_lowres"]
    assert select_configurations(plans, ["3d_cascade_fullres", "3d_fullres"]) == ["3d_fullres"]
    with pytest.raises(UserError, match="no configuration 4d"):
        select_configurations(plans, ["4d"])


def test_a_configuration_with_its_own_data_is_preprocessed_itself(phantom: Any) -> None:
    plans = phantom.plans
    own = {"inherits_from": "2d", "data_identifier": "nnUNetPlans_fine", "spacing": [0.5, 0.5]}
    plans["configurations"] |= {"fine": own, "big": {"inherits_from": "2d", "batch_size": 50}}
    assert select_configurations(plans, ["fine", "big"]) == ["fine", "2d"]
    plans["configurations"] = {"mine": {**plans["configurations"]["2d"]}}
    assert select_configurations(plans, None) == ["mine"]


def test_a_torn_copy_of_a_label_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("the label")
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/a.nii.gz").write_text("the l")  # newer, as a killed copy is
    copy_ground_truth([Case("a", (), str(tmp_path / "a.nii.gz"), "")], tmp_path / "gt", ".nii.gz")
    assert (tmp_path / "gt/a.nii.gz").read_text() == "the label"
    # nor does a case whose label was taken away keep one
    (tmp_path / "gt/unlabelled.nii.gz").write_text("its label of before")
    copy_ground_truth([Case("a", (), str(tmp_path / "a.nii.gz"), "")], tmp_path / "gt", ".nii.gz")
    assert [path.name for path in (tmp_path / "gt").iterdir()] == ["a.nii.gz"]


def test_the_command_ends_with_what_to_do_next(
    phantom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preprocess", "-d", "901", "-c", "3d_fullres", "-np", "1"]) == 0
    out = capsys.readouterr().out
    assert "5 labelled and 6 unlabelled cases" in out
    assert "nnUNetv2_train 901 3d_fullres 0 -tr SemiUnifiedTrainer" in out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "spacing", "target"),
    [
        ((16, 24, 24), (1.0, 1.0, 1.0), (0.2, 0.2, 0.2)),
        ((10, 30, 30), (40.0, 0.5, 0.5), (4.0, 0.2, 0.2)),  # slice by slice, then between them
        ((20, 30, 30), (5.0, 1.0, 1.0), (5.0, 0.2, 0.2)),
    ],
)
def test_the_estimate_is_the_memory_that_nnunet_takes(
    shape: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...], channels: int
) -> None:
    new, needed = estimate_memory(Geometry(shape, spacing), channels, (0, 1, 2), target)
    data = np.random.default_rng(0).random((channels, *shape), dtype=np.float32)
    options: dict[str, Any] = {"order_z": 0, "force_separate_z": None}
    resample_data_or_seg_to_shape(data, new, spacing, target, False, 3, **options)  # imports
    tracemalloc.start()
    data = resample_data_or_seg_to_shape(data, new, spacing, target, False, 3, **options)
    label = np.zeros((1, *shape), np.int8)
    resample_data_or_seg_to_shape(label, new, spacing, target, True, 1, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.shape == (channels, *new)
    assert needed == pytest.approx(peak, rel=0.15)


def test_axes_are_transposed_as_in_the_plans_and_2d_keeps_the_slices() -> None:
    place = Geometry((30, 200, 100), (3.0, 1.0, 2.0))
    assert estimate_memory(place, 1, (0, 1, 2), (1.0, 1.0, 1.0))[0] == (90, 200, 200)
    assert estimate_memory(place, 1, (2, 0, 1), (1.0, 1.0, 1.0))[0] == (200, 90, 200)
    assert estimate_memory(place, 1, (0, 1, 2), (0.5, 0.5))[0] == (30, 400, 400)
    assert estimate_memory(place, 1, (1, 0, 2), (1.0, 4.0))[0] == (200, 90, 50)


def test_absurd_sizes_do_not_overflow() -> None:
    shape, needed = estimate_memory(Geometry((500,) * 3, (1e12,) * 3), 4, (0, 1, 2), (1e-3,) * 3)
    assert needed > 10**40 and all(size > 10**17 for size in shape)


@pytest.fixture
def exploding(copy: Copy) -> str:
    """An unlabelled case whose spacing is a thousand times too large."""
    case = names(copy.raw / "imagesUn")[0]
    image = voxels(0, (12, 32, 32), np.float32)
    write(copy.raw / f"imagesUn/{case}_0000.nii.gz", image, (1000.0, 1000.0, 2.5))
    return case


def test_too_large_images_are_named_before_any_is_preprocessed(copy: Copy, exploding: str) -> None:
    skipped = copy.preprocessed / "semi_skipped.json"
    before = {path: path.stat().st_mtime_ns for path in copy.preprocessed.glob("nnUNetPlans_*/*")}
    skipped.unlink(missing_ok=True)
    with pytest.raises(UserError, match="--skip-bad skips them") as error:
        copy.prepare()
    (problem,) = error.value.problems
    assert problem.where == f"imagesUn/{exploding}_0000.nii.gz"
    assert (
        "for 2d its (12, 32, 32) voxels of (2.5, 1000, 1000) mm are resampled to (12, "
        in problem.what
    )
    there = prepare.memory_bytes()
    assert there is not None and f"this machine has {there / GIB:.1f} GiB" in problem.what
    assert "correct the spacing" in problem.fix
    after = {path: path.stat().st_mtime_ns for path in copy.preprocessed.glob("nnUNetPlans_*/*")}
    assert after == before and not skipped.exists()


def test_too_large_cases_are_skipped_on_request(
    copy: Copy, exploding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy.prepare(skip_bad=True) == {"2d": (5, 3)}
    out = capsys.readouterr().out
    assert "skipped 1 unlabelled cases" in out
    assert f"imagesUn/{exploding}_0000.nii.gz: for 2d" in out
    assert exploding in (copy.preprocessed / "semi_skipped.json").read_text()


def test_a_skipped_outlier_needs_no_memory(copy: Copy, exploding: str) -> None:
    assert copy.prepare(skip_outliers=True) == {"2d": (5, 3)}
    assert exploding in (copy.preprocessed / "semi_skipped.json").read_text()


def test_with_unknown_memory_nothing_is_refused(
    copy: Copy, exploding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "memory_bytes", lambda: None)
    monkeypatch.setattr("semi_nnunet.preprocessing.prepare.preprocess_labelled", lambda *_: None)
    monkeypatch.setattr("semi_nnunet.preprocessing.shards.preprocess_cases", lambda *_: None)
    assert copy.prepare() == {"2d": (5, 4)}


def test_an_image_that_fits_is_not_named(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "memory_bytes", lambda: 2_000_000)
    assert copy.prepare() == {"2d": (5, 4)}
    monkeypatch.setattr(prepare, "memory_bytes", lambda: 100_000)
    with pytest.raises(UserError, match="resampling 4 unlabelled images"):
        copy.prepare()


def test_stacks_of_tiff_with_files_of_their_spacing_are_preprocessed(nnunet_folders: Path) -> None:
    root = nnunet_folders / "raw/Dataset976_Stacks"
    root.mkdir()
    make_tif(root, (8, 24, 24))
    assert main(["preprocess", "-d", "976", "-c", "3d_fullres", "-np", "1"]) == 0
    made = nnunet_folders / "preprocessed/Dataset976_Stacks"
    assert (made / "nnUNetPlans_3d_fullres_unlabeled/u.b2nd").is_file()


def test_the_spacing_of_a_stack_goes_with_its_label(tmp_path: Path) -> None:
    folder = tmp_path / "gt"
    for name, text in (("a_0001.tif", "voxels"), ("a_0001.json", '{"spacing": [3, 1, 1]}')):
        (tmp_path / name).write_text(text)
    case = Case("a_0001", (), str(tmp_path / "a_0001.tif"), "")
    copy_ground_truth([case], folder, ".tif")
    assert (folder / "a_0001.json").read_text() == '{"spacing": [3, 1, 1]}'
    (tmp_path / "a_0001.json").write_text('{"spacing": [2, 1, 1]}')
    copy_ground_truth([case], folder, ".tif")
    assert (folder / "a_0001.json").read_text() == '{"spacing": [2, 1, 1]}'
    (tmp_path / "a_0001.json").unlink()
    copy_ground_truth([case], folder, ".tif")
    assert [path.name for path in folder.iterdir()] == ["a_0001.tif"]
