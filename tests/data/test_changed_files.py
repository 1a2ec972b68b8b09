"""Files that were corrected after a first preprocessing: only they are done again, by name."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.loading.unlabelled import UnlabelledCases
from semi_nnunet.preprocessing import cases as preprocessing_cases
from semi_nnunet.preprocessing.manifest import Manifest, read_sources
from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_for_training
from semi_nnunet.raw.layout import PLANNED_FROM
from semi_nnunet.runs.folders import Folders
from semi_nnunet.util import provenance
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.workflows.before_start import find_data_problems, find_raw_changes
from tests.data.copied import Copy, names


def unlabelled_folder(copy: Copy) -> Path:
    return copy.preprocessed / "nnUNetPlans_2d_unlabeled"


def edit(path: Path) -> None:
    """Change some voxels."""
    image = sitk.ReadImage(path)
    array = sitk.GetArrayFromImage(image)
    array[0] = array.max() - array[0]
    edited = sitk.GetImageFromArray(array)
    edited.CopyInformation(image)
    sitk.WriteImage(edited, path)


def done_again(copy: Copy, before: dict[str, float], folder: str) -> set[str]:
    """Return the cases that were preprocessed since."""
    entries = Manifest(copy.preprocessed / folder).read()
    return {case for case, entry in entries.items() if entry.when != before.get(case)}


def times(copy: Copy, folder: str) -> dict[str, float]:
    return {c: entry.when for c, entry in Manifest(copy.preprocessed / folder).read().items()}


def test_a_mended_spacing_preprocesses_the_case_again(copy: Copy) -> None:
    copy.prepare()
    case = names(copy.raw / "imagesUn")[0]
    path, folder = copy.raw / "imagesUn" / f"{case}_0000.nii.gz", unlabelled_folder(copy)
    before = times(copy, folder.name)
    image = sitk.ReadImage(path)
    image.SetSpacing([size * 2 for size in image.GetSpacing()])
    sitk.WriteImage(image, path)
    copy.prepare()
    assert done_again(copy, before, folder.name) == {case}
    properties = pickle.loads((folder / f"{case}.pkl").read_bytes())
    np.testing.assert_allclose(properties["spacing"], image.GetSpacing()[::-1], rtol=1e-5)


def test_cases_of_the_earlier_version_are_kept_unless_their_spacing_is_another(copy: Copy) -> None:
    copy.prepare()
    folder = unlabelled_folder(copy)
    path = folder.with_name(f"{folder.name}.manifest.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["source"] = line["source"].rpartition("-")[0]
    lines[0]["facts"]["spacing"][0] *= 2
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = times(copy, folder.name)
    copy.prepare()
    assert done_again(copy, before, folder.name) == {lines[0]["case"]}


def test_changed_labels_are_named_as_other_than_those_of_the_plans(copy: Copy, capsys) -> None:
    copy.prepare()
    assert "since the fingerprint and the plans" not in capsys.readouterr().err
    case = names(copy.raw / "imagesTr")[0]
    edit(copy.raw / "imagesTr" / f"{case}_0000.nii.gz")
    for _ in range(2):  # until they are planned again
        copy.prepare()
        err = capsys.readouterr().err
        assert f"since the fingerprint and the plans were made: image of {case}" in err
    (copy.preprocessed / "dataset_fingerprint.json").unlink()
    copy.prepare()
    record = json.loads((copy.preprocessed / PLANNED_FROM).read_text())
    folder = copy.preprocessed / "nnUNetPlans_2d"
    assert record["cases"] == read_sources(folder, names(copy.raw / "imagesTr"))
    copy.prepare()
    assert "since the fingerprint and the plans" not in capsys.readouterr().err


def test_an_image_that_is_still_being_copied_is_an_error_now_and_whole_later(
    copy: Copy, monkeypatch
) -> None:
    case = names(copy.raw / "imagesUn")[0]
    path = copy.raw / "imagesUn" / f"{case}_0000.nii.gz"
    copy.prepare()
    edit(path)
    read_facts = preprocessing_cases._read_facts

    def copy_the_rest(folder, name, with_label):
        if name == case:
            edit(path)
        return read_facts(folder, name, with_label)

    with monkeypatch.context() as context:
        context.setattr(preprocessing_cases, "_read_facts", copy_the_rest)
        with pytest.raises(UserError) as caught:
            copy.prepare()
    assert [problem.where for problem in caught.value.problems] == [case]
    before = times(copy, unlabelled_folder(copy).name)
    copy.prepare()
    assert done_again(copy, before, unlabelled_folder(copy).name) == {case}


def test_files_that_changed_since_preprocessing_are_named(copy: Copy, monkeypatch) -> None:
    folders = Folders(copy.raw, copy.preprocessed, copy.raw)
    copy.prepare()
    assert list(find_raw_changes(folders)) == []
    labelled, unlabelled = names(copy.raw / "imagesTr")[0], names(copy.raw / "imagesUn")
    edit(copy.raw / "labelsTr" / f"{labelled}.nii.gz")
    edit(copy.raw / "imagesUn" / f"{unlabelled[0]}_0000.nii.gz")
    (copy.raw / "imagesUn" / f"{unlabelled[1]}_0000.nii.gz").unlink()
    shutil.copy(
        copy.raw / "imagesUn" / f"{unlabelled[0]}_0000.nii.gz",
        copy.raw / "imagesUn/new_0000.nii.gz",
    )
    (problem,) = find_raw_changes(folders)
    expected = {labelled, unlabelled[0], f"{unlabelled[1]} (gone)", "new (new)"}
    assert {*problem.what.partition(": ")[2].split(", ")} == expected
    copy.prepare()
    assert list(find_raw_changes(folders)) == []
    for path in copy.raw.rglob("*.nii.gz"):
        path.touch()
    assert list(find_raw_changes(folders)) == []
    for name in ("sha256_of_file", "sha256_of_version"):
        monkeypatch.setattr(provenance, name, lambda path: pytest.fail("read again"))
    assert list(find_raw_changes(folders)) == []  # the states of the touched files are known now


def test_arrays_of_another_configuration_are_older_than_the_check(copy: Copy) -> None:
    """preprocess -c 2d checks corrected files, and leaves the arrays of 3d_fullres as they were."""
    folders = Folders(copy.raw, copy.preprocessed, copy.raw)
    both = ["2d", "3d_fullres"]

    def prepare(configurations: list[str]) -> None:
        prepare_for_training(copy.number, PrepareOptions(configurations))

    def find_stale(configuration: str) -> list[Problem]:
        plans = read_json(copy.preprocessed / "nnUNetPlans.json")
        return [*find_data_problems(folders, plans, "nnUNetPlans", [configuration], [RECOMMENDED])]

    prepare(both)
    assert [*map(find_stale, both)] == [[], []]
    labelled, (first, second, *_) = names(copy.raw / "imagesTr")[0], names(copy.raw / "imagesUn")
    edit(copy.raw / "labelsTr" / f"{labelled}.nii.gz")
    image = copy.raw / "imagesUn" / f"{first}_0000.nii.gz"
    edit(image)
    shutil.copy(copy.raw / "imagesUn" / f"{second}_0000.nii.gz", image.with_name("new_0000.nii.gz"))
    edit(image.with_name("new_0000.nii.gz"))
    prepare(["2d"])
    assert find_stale("2d") == []
    of_labelled, of_unlabelled, missing = find_stale("3d_fullres")
    assert labelled in of_labelled.what and "-c 3d_fullres" in str(of_labelled.fix)
    assert first in of_unlabelled.what and "new" not in of_unlabelled.what
    assert missing.what.endswith(": new")
    prepare(["3d_fullres"])
    assert [*map(find_stale, both)] == [[], []]


@pytest.mark.parametrize("damage", ["empty", "half", "list"])
def test_damaged_unlabelled_cases_are_no_smaller_pool(copy: Copy, damage: str) -> None:
    copy.prepare()
    folder = unlabelled_folder(copy)
    (folder / ".DS_Store").touch()  # a file browser opened the folder
    cases = UnlabelledCases(folder).all([])
    if damage == "list":
        path = folder.with_name(f"{folder.name}.manifest.jsonl")
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-1]))
        broken = json.loads(lines[-1])["case"]
    else:
        broken = cases[1]
        path = folder / f"{broken}.b2nd"
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    with pytest.raises(UserError, match=broken):
        UnlabelledCases(folder).all([])
    copy.prepare()
    assert UnlabelledCases(folder).all([]) == cases
