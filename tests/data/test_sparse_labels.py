"""Sparse labels hold what the full ones do, for every class, and repeat with their seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import make_phantom, write_phantom_dataset
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.sparse_labels import (
    SparseLabelWriter,
    Sparsity,
    declare_ignore_label,
    find_thickest_axis,
    make_sparse,
    parse_sparsity,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.verbs.split import split

IGNORE = 4
KINDS = ("scribbles=0.5", "points", "points=3", "box", "box=0.3")


def draw_label(seed: int) -> np.ndarray:
    """Draw a label with rare and tiny components, and perhaps ignored voxels."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, (5, 16, 16)))
    full = np.kron(rng.integers(0, 4, shape), np.ones((1, 3, 3), int))
    full[rng.random(full.shape) < 0.05] = rng.integers(1, 4)
    if seed % 3 == 0:
        full[:, : full.shape[1] // 2] = IGNORE
    return full


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.integers(0, 2))
def test_every_class_of_every_slice_keeps_correct_voxels(seed: int, kind: str, axis: int) -> None:
    full, sparsity = draw_label(seed), parse_sparsity(kind)
    sparse = make_sparse(full, sparsity, IGNORE, np.random.default_rng(seed), axis)
    annotated = sparse != IGNORE
    assert np.array_equal(sparse[annotated], full[annotated])
    for before, after in zip(np.moveaxis(full, axis, 0), np.moveaxis(sparse, axis, 0), strict=True):
        assert {*np.unique(before)} - {IGNORE} == {*np.unique(after)} - {IGNORE}
    again = make_sparse(full, sparsity, IGNORE, np.random.default_rng(seed), axis)
    assert np.array_equal(sparse, again)


@given(st.integers(1, 80), st.floats(0.01, 1), st.integers(0, 2**32))
def test_the_fraction_of_slices_is_right(number: int, fraction: float, seed: int) -> None:
    full = np.ones((number, 2, 2), int)
    rng = np.random.default_rng(seed)
    kept = (make_sparse(full, Sparsity("slices", fraction), IGNORE, rng) == 1).all((1, 2))
    assert kept.sum() == max(1, round(fraction * number))
    gaps = np.diff(np.flatnonzero(kept))
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("smaller", "larger"), [("scribbles=0.1", "scribbles"), ("box", "box=0.3")]
)
def test_a_larger_amount_annotates_more(smaller: str, larger: str) -> None:
    full = make_phantom(3, (6, 48, 48))[1]
    few, many = (
        make_sparse(full, parse_sparsity(kind), IGNORE, np.random.default_rng(0)) != IGNORE
        for kind in (smaller, larger)
    )
    assert 0 < few.sum() < many.sum() < 0.6 * full.size


def test_scribbles_are_short_and_points_are_few() -> None:
    full = make_phantom(3, (6, 48, 48))[1]
    scribbles, points = (
        make_sparse(full, parse_sparsity(kind), IGNORE, np.random.default_rng(0)) != IGNORE
        for kind in ("scribbles", "points=2")
    )
    assert scribbles.mean() < 0.12 and all(
        0 < scribbles[full == value].mean() < 0.6 for value in np.unique(full)
    )
    classes_of_slices = sum(len(np.unique(slice_)) for slice_ in full)
    assert classes_of_slices < points.sum() <= 2 * classes_of_slices


def test_scribbles_are_connected_lines_inside_and_along_the_border() -> None:
    full = np.zeros((1, 40, 40), int)
    full[0, 5:30, 10:20] = 1
    sparse = make_sparse(full, parse_sparsity("scribbles"), IGNORE, np.random.default_rng(1))
    drawn = sitk.GetImageFromArray((sparse[0] == 1).astype(np.uint8))
    components = sitk.ConnectedComponent(drawn, True)
    assert 1 <= sitk.GetArrayFromImage(components).max() <= 2
    inside = np.argwhere(sparse[0] == 1)
    assert (inside.min(0) > (5, 10)).all() and (inside.max(0) < (29, 19)).all()
    assert 12 < len(inside) < 50


def test_slices_are_cut_across_the_thickest_axis() -> None:
    assert find_thickest_axis((1, 5, 1), (9, 9, 9)) == 1
    assert find_thickest_axis((999, 1, 1), (1, 9, 9)) == 0


@pytest.mark.parametrize(
    "text",
    ["", "lines", "slices", "slices=0", "slices=1.5", "slices=x", "slices=nan", "points=1.5",
     "points=0", "box=", "scribbles=-1", "slices=inf"],
)  # fmt: skip
def test_a_wrong_kind_or_amount_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="--sparse"):
        parse_sparsity(text)


def test_an_existing_ignore_label_is_kept() -> None:
    labels = {"background": 0, "a": 1, "ignore": 2}
    assert declare_ignore_label({"labels": labels}) == {"labels": labels}


# ---- data sets ----


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    return tmp_path


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_a_split_with_scribbles_hides_the_full_labels(raw: Path, kind: str) -> None:
    source = raw / "Dataset004_Phantom"
    write_phantom_dataset(source, 3, 0, 1, (6, 32, 32), label_kind=kind)
    made = split("4", 504, sparse="scribbles", seed=3)
    assert made.folder.name == "Dataset504_Phantom3scribbles"
    content = RawDataset.of(made.folder).description
    assert content["labels"]["ignore"] == IGNORE and content["numTraining"] == 3
    assert len(list((made.folder / "imagesTr").iterdir())) == 3
    for case in ("phantom_0000", "phantom_0001", "phantom_0002"):
        full = read(source / "labelsTr" / f"{case}.nii.gz")
        path = made.folder / "labelsTr" / f"{case}.nii.gz"
        sparse, annotated = read(path), read(path) != IGNORE
        assert np.array_equal(sparse[annotated], full[annotated])
        assert 0 < annotated.mean() < 0.5
        assert np.array_equal(read(made.hidden_labels / f"{case}.nii.gz"), full)
        images = [sitk.ReadImage(str(p)) for p in (path, source / "labelsTr" / path.name)]
        assert images[0].GetSpacing() == images[1].GetSpacing()
    tests = (read(folder / "labelsTs" / "phantom_0003.nii.gz") for folder in (source, made.folder))
    assert np.array_equal(*tests)
    assert not split("4", 504, sparse="scribbles", seed=3).is_new
    with pytest.raises(UserError, match="exists already"):
        split("4", 504, sparse="scribbles", seed=4)


def test_the_label_of_a_case_depends_on_its_name_and_seed_only(raw: Path) -> None:
    write_phantom_dataset(raw / "Dataset004_Phantom", 3, 0, 0, (6, 32, 32))
    alone, other, together = (
        split("4", number, count, sparse="points", seed=seed, new_name=str(number))
        for number, count, seed in ((501, 1, 0), (502, 1, 1), (503, None, 0))
    )
    (case,) = (alone.folder / "labelsTr").iterdir()
    assert np.array_equal(read(case), read(together.folder / "labelsTr" / case.name))
    assert not any(
        np.array_equal(read(path), read(together.folder / "labelsTr" / path.name))
        for path in (other.folder / "labelsTr").iterdir()
    )
    assert len(list((alone.folder / "imagesUn").iterdir())) == 2


def test_pictures_get_scribbles_but_no_slices(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantom_dataset(raw / "Dataset004_Phantom", 2, 0, 0, (1, 48, 48), file_ending=".png")
    made = split("4", 504, sparse="scribbles")
    sparse = read(made.folder / "labelsTr" / "phantom_0000.png")
    assert IGNORE in sparse and len(np.unique(sparse)) > 2
    assert main(["split", "-d", "4", "--new-id", "505", "--sparse", "slices=0.5"]) == 2
    assert capsys.readouterr().err.count("single slice") == 2
    assert not (raw / "Dataset505_Phantom2slices").exists()


def test_slices_are_counted_along_the_thick_axis(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.eye(6, dtype=np.uint8)[..., None])  # one slice across X
    image.SetSpacing((9.0, 1.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "full.nii.gz"))
    description = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    writer = SparseLabelWriter(Sparsity("slices", 0.5), description, seed=0)
    writer.write("case", tmp_path / "full.nii.gz", tmp_path / "sparse.nii.gz")
    (problem,) = writer.problems
    assert "single slice" in problem.what and not (tmp_path / "sparse.nii.gz").exists()


def test_all_wrong_options_are_reported_together(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantom_dataset(raw / "Dataset004_Phantom", 2, 0, 0, (2, 16, 16))
    words = ["--labelled", "9", "--sparse", "slices", "--new-name", "a/b"]
    assert main(["split", "-d", "4", "--new-id", "505", *words]) == 2
    message = capsys.readouterr().err
    assert "--sparse" in message and "--labelled" in message and "--new-name" in message


def test_labels_that_cannot_be_made_sparse_are_reported_together(raw: Path) -> None:
    source = raw / "Dataset004_Phantom"
    write_phantom_dataset(source, 3, 0, 0, (2, 16, 16), label_kind="ignore")
    labels = sorted((source / "labelsTr").iterdir())
    image = sitk.ReadImage(str(labels[0]))
    labels[0].write_bytes(b"no image")
    for path, value in zip(labels[1:], (9, IGNORE), strict=True):
        sitk.WriteImage(image * 0 + value, str(path))
    with pytest.raises(UserError) as error:
        split("4", 504, sparse="points")
    assert [Path(problem.where).name for problem in error.value.problems] == [
        p.name for p in labels
    ]
    assert not (raw / "Dataset504_Phantom3points").exists()


def test_a_class_without_annotation_is_an_error(raw: Path) -> None:
    source = raw / "Dataset004_Phantom"
    write_phantom_dataset(source, 1, 0, 0, (8, 16, 16))
    (path,) = (source / "labelsTr").iterdir()
    image = sitk.ReadImage(str(path))
    array = np.zeros((8, 16, 16), np.uint8)
    array[3] = 1
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))
    with pytest.raises(UserError, match="label value 1"):
        for seed in range(30):
            split("4", 504, sparse="slices=0.125", seed=seed, new_name=str(seed))
    assert "sparse" not in json.loads((source / "dataset.json").read_text())
