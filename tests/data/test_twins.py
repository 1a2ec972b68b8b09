"""Tests of near-twins: exactness, speed, folds, splits and warnings."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from skimage import io

from semi_nnunet.cli.main import main
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.raw.folds import make_folds
from semi_nnunet.training.cases import require_fold
from semi_nnunet.verify.image_files import make_thumbnail
from semi_nnunet.verify.twins import (
    ALIKE,
    decode_thumbnail,
    find_similar_pairs,
    find_split_twins,
    join_twins,
)
from tests.conftest import no_processes


def test_pairs_are_those_of_the_slow_comparison():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(700, 40)) @ rng.normal(size=(40, 60))
    for i in range(0, 60, 2):  # from clear twins to pairs that are just different
        vectors[i + 1] = vectors[i] + rng.normal(size=60) * vectors[i].std() * 0.005 * i
    vectors[5] = 3.0  # of one grey value, it is like no other
    correlation = np.corrcoef(np.delete(vectors, 5, 0))
    kept = [i for i in range(700) if i != 5]
    slow = [(kept[i], kept[j]) for i, j in np.argwhere(np.triu(correlation, 1) >= ALIKE)]
    assert len(slow) > 5
    assert find_similar_pairs(vectors) == sorted(slow)


def test_frames_of_a_patient_do_not_hide_twins_of_others():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(10, 50)).repeat(30, 0) + 0.001 * rng.normal(size=(300, 50))
    patients = [f"patient{number // 30}" for number in range(300)]
    vectors[299] = vectors[0]  # of the first patient, by another name
    found = find_similar_pairs(vectors, groups=patients)
    assert found == [(number, 299) for number in range(30)]
    assert find_similar_pairs(vectors) == []


def test_images_that_are_all_alike_have_no_twins():
    rng = np.random.default_rng(0)
    vectors = np.arange(50.0) + 0.01 * rng.normal(size=(300, 50))
    assert find_similar_pairs(vectors) == []


def test_many_images_take_seconds():
    rng = np.random.default_rng(0)
    count, waves = 20_000, np.cos(np.pi * np.arange(8) * (np.arange(24)[:, None] + 0.5) / 24)
    waves = waves / (1 + np.arange(8))
    fields = rng.normal(size=(count, 8, 8)).astype(np.float32)
    vectors = np.einsum("nab,ia,jb->nij", fields, waves, waves, optimize=True).reshape(count, -1)
    vectors[17] = vectors[4] * 2 + 1
    begin = time.process_time()
    assert find_similar_pairs(vectors) == [(4, 17)]
    assert time.process_time() - begin < 10  # 0.5 s on a quiet core


@pytest.mark.parametrize("shape", [(1, 300, 200), (40, 64, 48), (2, 7, 5)])
def test_a_thumbnail_survives_scaling_and_noise_and_tells_images_apart(shape):
    rng = np.random.default_rng(0)
    first, second = (np.cumsum(rng.normal(size=shape), -1).astype(np.float32) for _ in range(2))
    noisy = first * 7 + 100 + rng.normal(size=shape)
    same, other, one = (decode_thumbnail(make_thumbnail(image)) for image in (noisy, second, first))
    assert np.corrcoef(one, same)[0, 1] > 0.99
    assert np.corrcoef(one, other)[0, 1] < 0.9


def test_groups_join_patients_and_twins_of_twins():
    group_of = join_twins(lambda case: case[0], [["a1", "b1"], ["b2", "c1"]])
    assert group_of("a2") == group_of("b3") == group_of("c9") != group_of("d1")


def write_twin_dataset(folder: Path) -> None:
    """6 labelled pictures, of which 1 is like 0, 4 unlabelled, and 2 tests, 1 like 3."""
    write_phantom_dataset(
        folder, labelled=6, unlabelled=4, test=2, shape=(1, 32, 32), file_ending=".png"
    )
    for twin, original in (
        ("Tr/phantom_0001", "Tr/phantom_0000"),
        ("Ts/phantom_0010", "Tr/phantom_0003"),
    ):
        image = io.imread(folder / f"images{original}_0000.png").astype(int)
        image[::7, ::7] += np.where(image[::7, ::7] > 128, -3, 3)
        path = folder / f"images{twin}_0000.png"
        io.imsave(path, image.astype(np.uint8), check_contrast=False)


def test_preprocess_warns_and_new_folds_keep_twins_together(tmp_path, monkeypatch, capsys):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    write_twin_dataset(tmp_path / "raw" / "Dataset978_Twins")
    preprocessed = tmp_path / "preprocessed" / "Dataset978_Twins"
    with no_processes():
        assert main(["preprocess", "-d", "978", "-np", "1"]) == 0
    text = capsys.readouterr().err
    assert "1 of 2 test images have a near-twin" in text and "phantom_0010" in text
    groups = json.loads((preprocessed / "semi_twins.json").read_text())["groups"]
    assert groups == [["phantom_0000", "phantom_0001"]]
    cases = [f"phantom_{n:04d}" for n in range(6)]
    require_fold(preprocessed, 0, cases, str)
    folds = json.loads((preprocessed / "splits_final.json").read_text())
    assert find_split_twins(folds, groups) == {}
    assert len(folds) == 5 and sorted(c for fold in folds for c in fold["val"]) == cases
    # existing folds stay, with a warning
    torn = make_folds(cases, str)
    assert find_split_twins(torn, groups)
    (preprocessed / "splits_final.json").write_text(json.dumps(torn))
    with no_processes():
        assert main(["preprocess", "-d", "978", "-np", "1"]) == 0
    assert "near-twin among its training cases" in capsys.readouterr().err
    assert json.loads((preprocessed / "splits_final.json").read_text()) == torn


def test_split_draws_twins_together(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setattr("semi_nnunet.workflows.prepare.count_usable_processes", lambda: 1)
    write_twin_dataset(tmp_path / "raw" / "Dataset978_Twins")
    torn = 0
    for seed in range(6):
        for number, words in ((800 + seed, []), (900 + seed, ["--ignore-twins"])):
            command = ["split", "-d", "978", "--new-id", str(number), "--labelled", "3"]
            assert main([*command, "--seed", str(seed), "--new-name", "S", *words]) == 0
            folder = tmp_path / "raw" / f"Dataset{number}_S" / "labelsTr"
            labelled = {path.stem for path in folder.iterdir()} & {"phantom_0000", "phantom_0001"}
            if words:
                torn += len(labelled) == 1
            else:
                assert len(labelled) in (0, 2)
    assert torn


@pytest.mark.slow
def test_the_test_images_of_busi_with_a_twin_are_found(shared_data, tmp_path, monkeypatch, capsys):
    if not (shared_data / "BUSI.zip").is_file():
        pytest.skip("no BUSI")
    from semi_nnunet.preprocessing.prepare import check_twins
    from semi_nnunet.raw.description import RawDataset
    from semi_nnunet.verify.integrity import check_dataset

    subprocess.run(
        [sys.executable, str(shared_data / "unpack.py"), str(tmp_path), "BUSI"], check=True
    )
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    source = str(tmp_path / "Dataset_BUSI_with_GT")
    assert main(["convert", "busi", source, "--new-id", "522"]) == 0
    (folder,) = (tmp_path / "raw").glob("Dataset522_*")
    raw = RawDataset.of(folder)
    reports = check_dataset(raw, 1)
    capsys.readouterr()
    check_twins(raw, reports, tmp_path)
    assert "22 of 129 test images have a near-twin" in capsys.readouterr().err
