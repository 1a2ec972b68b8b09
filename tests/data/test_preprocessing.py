"""Preprocessing may be killed at any moment, and its files equal those of nnU-Net."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.preprocessing import cases as preprocessing
from semi_nnunet.preprocessing.cases import (
    Case,
    PreprocessingSpec,
    adopt_stock_preprocessing,
    preprocess_cases,
)
from semi_nnunet.preprocessing.manifest import Manifest, get_manifest_file
from semi_nnunet.raw.description import list_raw_cases
from semi_nnunet.util.errors import DiskError, UserError
from tests.data.killing import KILLERS
from tests.data.preprocessed import content, voxels
from tests.forking import forked

CONFIGURATION = "3d_fullres"


def cases_of(raw: Path, subset: str, description: dict[str, Any]) -> list[Case]:
    found = [case for case in list_raw_cases(raw, description, "imagesUn") if case.subset == subset]
    return [
        Case(case.case, case.images, case.label, hashlib.sha256(case.case.encode()).hexdigest())
        for case in found
    ]


@pytest.fixture(scope="module")
def raw(prepared_dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the raw data set, to be changed."""
    folder = tmp_path_factory.mktemp("raw") / "copy"
    shutil.copytree(prepared_dataset("labels", 1).raw, folder)
    return folder


@pytest.fixture(scope="module")
def recipe(prepared_dataset: Any) -> PreprocessingSpec:
    dataset = prepared_dataset("labels", 1)
    return PreprocessingSpec(dataset.plans, CONFIGURATION, dataset.dataset_json)


@pytest.fixture(scope="module")
def labelled(raw: Path, recipe: PreprocessingSpec) -> list[Case]:
    return cases_of(raw, "labelled", recipe.dataset_json)[:3]


@pytest.fixture(scope="module")
def unlabelled(raw: Path, recipe: PreprocessingSpec) -> list[Case]:
    return cases_of(raw, "unlabelled", recipe.dataset_json)[:3]


def run(cases: list[Case], recipe: PreprocessingSpec, folder: Path, processes: int = 1) -> int:
    return preprocess_cases(cases, recipe, folder, processes, "test")


@pytest.fixture(scope="module")
def clean(
    labelled: list[Case],
    unlabelled: list[Case],
    recipe: PreprocessingSpec,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """What uninterrupted runs make."""
    root = tmp_path_factory.mktemp("clean")
    for name, cases in (("labelled", labelled), ("unlabelled", unlabelled)):
        assert run(cases, recipe, root / name) == 3
    return {name: root / name for name in ("labelled", "unlabelled")}


# ---- killed ----


def killed(
    arm: Callable[[], None], cases: list[Case], recipe: PreprocessingSpec, folder: Path
) -> None:
    """Preprocess in a process that dies where ``arm`` says."""
    process = forked(armed_run, arm, cases, recipe, folder)
    process.join(60)
    process.kill()
    assert process.exitcode == -signal.SIGKILL


def armed_run(
    arm: Callable[[], None], cases: list[Case], recipe: PreprocessingSpec, folder: Path
) -> None:
    arm()
    run(cases, recipe, folder)


@pytest.mark.parametrize("kind", ["labelled", "unlabelled"])
@pytest.mark.parametrize(
    ("arm", "left"), KILLERS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_a_killed_run_continues_and_ends_as_an_uninterrupted_one(
    arm: Callable[[], None],
    left: int,
    kind: str,
    tmp_path: Path,
    recipe: PreprocessingSpec,
    clean: dict[str, Path],
    request: pytest.FixtureRequest,
) -> None:
    cases, folder = request.getfixturevalue(kind), tmp_path / "cases"
    killed(arm, cases, recipe, folder)
    assert run(cases, recipe, folder) == left
    assert content(folder) == content(clean[kind])
    assert {path.name for path in tmp_path.iterdir()} == {"cases", "cases.manifest.jsonl"}
    assert Manifest(folder).present().keys() == {case.name for case in cases}
    assert run(cases, recipe, folder) == 0


@pytest.mark.slow
def test_a_killed_worker_only_loses_its_own_case(
    labelled: list[Case], recipe: PreprocessingSpec, tmp_path: Path, clean: dict[str, Path]
) -> None:
    deadly = dataclasses.replace(labelled[0], images=_Deadly(labelled[0].images))
    with pytest.raises(UserError) as error:
        run([deadly, *labelled[1:]], recipe, tmp_path / "cases", processes=2)
    assert [problem.where for problem in error.value.problems] == [labelled[0].name]
    assert "memory" in error.value.problems[0].fix
    assert run(labelled, recipe, tmp_path / "cases", processes=2) == 1
    assert content(tmp_path / "cases") == content(clean["labelled"])


class _Deadly(tuple[str, ...]):
    """File names whose arrival in a worker process kills it."""

    def __reduce__(self) -> Any:
        return _die, (os.getpid(), tuple(self))


def _die(parent: int, names: tuple[str, ...]) -> tuple[str, ...]:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return names


# ---- redone where something changed, kept where not ----


def copied(clean: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "cases"
    shutil.copytree(clean, folder)
    shutil.copy(get_manifest_file(clean), get_manifest_file(folder))
    return folder


def changed_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [changed_byte, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_damaged_file_is_made_again(
    damage: Callable[[Path], Any],
    ending: str,
    labelled: list[Case],
    recipe: PreprocessingSpec,
    clean: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = copied(clean["labelled"], tmp_path)
    damage(folder / f"{labelled[1].name}{ending}")
    assert run(labelled, recipe, folder) == 1
    assert content(folder) == content(clean["labelled"])


def test_a_changed_image_is_preprocessed_again(
    labelled: list[Case], recipe: PreprocessingSpec, clean: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(clean["labelled"], tmp_path)
    changed = dataclasses.replace(labelled[1], content_hash="another")
    assert run([labelled[0], changed, labelled[2]], recipe, folder) == 1


def test_a_changed_label_is_preprocessed_again(
    labelled: list[Case], recipe: PreprocessingSpec, clean: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(clean["labelled"], tmp_path)
    image = sitk.ReadImage(str(labelled[1].label))
    sitk.WriteImage(image * 0, str(tmp_path / "empty.nii.gz"))
    changed = dataclasses.replace(labelled[1], label=str(tmp_path / "empty.nii.gz"))
    assert run([labelled[0], changed, labelled[2]], recipe, folder) == 1
    assert voxels(folder / f"{changed.name}_seg.b2nd").max() == 0


def with_plan(recipe: PreprocessingSpec, **changes: Any) -> PreprocessingSpec:
    configuration = {**recipe.plans["configurations"][CONFIGURATION], **changes}
    configurations = {**recipe.plans["configurations"], CONFIGURATION: configuration}
    return dataclasses.replace(recipe, plans={**recipe.plans, "configurations": configurations})


def test_a_changed_spacing_makes_all_cases_again(
    labelled: list[Case], recipe: PreprocessingSpec, clean: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(clean["labelled"], tmp_path)
    assert run(labelled, with_plan(recipe, spacing=[2.5, 2.0, 2.0]), folder) == 3
    assert voxels(folder / f"{labelled[0].name}.b2nd").shape == (1, 12, 16, 16)


def test_network_batch_and_our_settings_change_no_case(
    labelled: list[Case], recipe: PreprocessingSpec, clean: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(clean["labelled"], tmp_path)
    other = with_plan(recipe, batch_size=99, patch_size=[12, 16, 16], architecture={})
    other = dataclasses.replace(other, plans={**other.plans, "semi": {"seed": 3}})
    assert run(labelled, other, folder) == 0


def test_files_of_removed_cases_are_deleted(
    labelled: list[Case], recipe: PreprocessingSpec, clean: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(clean["labelled"], tmp_path)
    assert run(labelled[:1], recipe, folder) == 0
    assert {path.name for path in folder.iterdir()} == {
        f"{labelled[0].name}{ending}" for ending in (".pkl", "_seg.b2nd", ".b2nd")
    }


def test_a_failing_case_is_named_and_the_others_are_finished(
    labelled: list[Case], recipe: PreprocessingSpec, tmp_path: Path
) -> None:
    (tmp_path / "bad_0000.nii.gz").write_text("no image")
    bad = dataclasses.replace(labelled[0], images=(str(tmp_path / "bad_0000.nii.gz"),))
    with pytest.raises(UserError) as error:
        run([bad, *labelled[1:]], recipe, tmp_path / "cases")
    assert [problem.where for problem in error.value.problems] == [bad.name]
    assert Manifest(tmp_path / "cases").present().keys() == {case.name for case in labelled[1:]}
    assert not (tmp_path / "cases.tmp").exists()
    assert run(labelled, recipe, tmp_path / "cases") == 1


def test_a_full_disk_is_reported_with_its_free_space(
    labelled: list[Case], recipe: PreprocessingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **options: Any) -> None:
        raise RuntimeError("Error while creating the NDArray")

    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(preprocessing.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(preprocessing, "_read_facts", full)
    with pytest.raises(DiskError, match=r"1\.0 MiB are free.*Fix: free some space") as error:
        run(labelled, recipe, tmp_path / "cases")
    assert labelled[0].name in str(error.value)  # no other case is tried
    assert not any(case.name in str(error.value) for case in labelled[1:])
    assert not (tmp_path / "cases.tmp").exists()
    monkeypatch.undo()
    assert run(labelled, recipe, tmp_path / "cases") == 3


# ---- the same as nnU-Net ----


@pytest.fixture(scope="module")
def stock(
    labelled: list[Case], recipe: PreprocessingSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """What nnU-Net's own preprocessor makes, and the folder of labels that it makes last."""
    root = tmp_path_factory.mktemp("stock")
    folder, ground_truth = root / "cases", root / "gt_segmentations"
    folder.mkdir()
    ground_truth.mkdir()
    plans = PlansManager(recipe.plans)
    configuration = plans.get_configuration(CONFIGURATION)
    for case in labelled:
        inputs = (list(case.images), str(case.label), plans, configuration, recipe.dataset_json)
        DefaultPreprocessor(False).run_case_save(str(folder / case.name), *inputs)
        shutil.copy(str(case.label), ground_truth)
    return folder, ground_truth


@pytest.fixture
def stock_copy(stock: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of what nnU-Net's own preprocessor makes."""
    return Path(shutil.copytree(stock[0], tmp_path / "cases"))


def test_labelled_cases_equal_those_of_nnunet(
    stock: tuple[Path, Path], clean: dict[str, Path]
) -> None:
    assert content(stock[0]) == content(clean["labelled"])


def test_unlabelled_cases_equal_those_of_nnunet(
    unlabelled: list[Case], recipe: PreprocessingSpec, clean: dict[str, Path], tmp_path: Path
) -> None:
    plans = PlansManager(recipe.plans)
    configuration = plans.get_configuration(CONFIGURATION)
    for case in unlabelled:
        inputs = (list(case.images), None, plans, configuration, recipe.dataset_json)
        data, _, properties = DefaultPreprocessor(False).run_case(*inputs)
        ours = clean["unlabelled"] / case.name
        np.testing.assert_array_equal(voxels(ours.with_suffix(".b2nd")), data)
        assert pickle.loads(ours.with_suffix(".pkl").read_bytes()).keys() == properties.keys()


def test_unlabelled_cases_have_no_segmentation_and_no_class_locations(
    clean: dict[str, Path],
) -> None:
    assert not list(clean["unlabelled"].glob("*_seg.b2nd"))
    for path in clean["unlabelled"].glob("*.pkl"):
        assert "class_locations" not in pickle.loads(path.read_bytes())
    for path in clean["labelled"].glob("*.pkl"):
        assert "class_locations" in pickle.loads(path.read_bytes())


def test_cases_that_nnunet_preprocessed_are_adopted(
    stock: tuple[Path, Path], stock_copy: Path, labelled: list[Case], recipe: PreprocessingSpec
) -> None:
    assert adopt_stock_preprocessing(labelled, recipe, stock_copy, stock[1])
    assert run(labelled, recipe, stock_copy) == 0
    assert not adopt_stock_preprocessing(labelled, recipe, stock_copy, stock[1])  # once is enough


@pytest.mark.parametrize(
    ("key", "value"),
    [("spacing", [2.0, 2.0]), ("normalization_schemes", ["RescaleTo01Normalization"])],
)
def test_cases_that_nnunet_preprocessed_for_other_plans_are_not_adopted(
    key: str,
    value: list[Any],
    stock: tuple[Path, Path],
    stock_copy: Path,
    labelled: list[Case],
    recipe: PreprocessingSpec,
) -> None:
    plans = copy.deepcopy(recipe.plans)
    plans["configurations"][CONFIGURATION][key] = value
    edited = replace(recipe, plans=plans)
    assert not adopt_stock_preprocessing(labelled, edited, stock_copy, stock[1])
    assert run(labelled, edited, stock_copy) == len(labelled)


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_unfinished_cases_of_nnunet_are_not_adopted(
    damage: Callable[[Path], Any],
    ending: str,
    stock: tuple[Path, Path],
    stock_copy: Path,
    labelled: list[Case],
    recipe: PreprocessingSpec,
) -> None:
    damage(stock_copy / f"{labelled[2].name}{ending}")
    assert not adopt_stock_preprocessing(labelled, recipe, stock_copy, stock[1])
    assert not get_manifest_file(stock_copy).exists()


def test_cases_whose_files_changed_since_are_not_adopted(
    stock: tuple[Path, Path],
    stock_copy: Path,
    labelled: list[Case],
    recipe: PreprocessingSpec,
    tmp_path: Path,
) -> None:
    first, folder = labelled[0], stock_copy
    corrected = tmp_path / "corrected.nii.gz"
    corrected.write_bytes(Path(str(first.label)).read_bytes() + b"0")
    others = [replace(first, label=str(corrected)), *labelled[1:]]
    assert not adopt_stock_preprocessing(others, recipe, folder, stock[1])
    exchanged = shutil.copy(first.images[0], tmp_path / "exchanged.nii.gz")
    later = os.stat(folder / f"{first.name}.pkl").st_mtime + 10
    os.utime(exchanged, (later, later))
    others = [replace(first, images=(str(exchanged),)), *labelled[1:]]
    assert not adopt_stock_preprocessing(others, recipe, folder, stock[1])


def test_without_the_copied_labels_nothing_is_adopted(
    stock: tuple[Path, Path],
    stock_copy: Path,
    labelled: list[Case],
    recipe: PreprocessingSpec,
    tmp_path: Path,
) -> None:
    shutil.copytree(stock[1], tmp_path / "gt")
    (tmp_path / "gt" / f"{labelled[0].name}.nii.gz").unlink()
    for ground_truth in (tmp_path / "gt", tmp_path / "absent"):
        assert not adopt_stock_preprocessing(labelled, recipe, stock_copy, ground_truth)


def test_a_stray_file_prevents_the_adoption(
    stock: tuple[Path, Path], stock_copy: Path, labelled: list[Case], recipe: PreprocessingSpec
) -> None:
    (stock_copy / "old_case.b2nd").write_bytes(b"")
    assert not adopt_stock_preprocessing(labelled, recipe, stock_copy, stock[1])
