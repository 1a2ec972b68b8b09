"""The program of a submission turns a folder of images into segmentations and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from semi_nnunet.challenge import entry
from semi_nnunet.challenge.entry import (
    main,
    predict_test_image,
    seconds_since_start,
    write_test_image,
)
from semi_nnunet.inference.predict import predict_images
from semi_nnunet.util.files import read_json, write_json
from tests.pseudo_labels.labelling import read


@pytest.fixture
def folders(pool, tmp_path) -> tuple[Path, Path]:
    """Two images, and an empty folder."""
    for path in sorted(pool.images.iterdir())[2:]:
        path.unlink()
    (tmp_path / "outputs").mkdir()
    return pool.images, tmp_path / "outputs"


def make_words(root: Path, *folders: Path) -> list[str]:
    return [str(path) for path in (root, *folders)]


def test_the_segmentations_equal_those_of_predict_and_nothing_else_is_written(
    pool, root, folders, tmp_path, capsys
):
    inputs, outputs = folders
    contents = {path: path.read_bytes() for path in inputs.iterdir()}
    assert main(make_words(root, inputs, outputs)) == 0
    expected = predict_images(
        pool.models[0].folder, inputs, tmp_path / "p", speed="exact", device="cpu"
    )
    assert sorted(path.name for path in outputs.iterdir()) == [path.name for path in expected]
    for path in expected:
        assert np.array_equal(read(outputs / path.name), read(path))
    assert {path: path.read_bytes() for path in inputs.iterdir()} == contents
    captured = capsys.readouterr()
    assert "predict 2 images" in captured.out and "limit" not in captured.out


def test_broken_images_are_reported_and_the_others_are_predicted(root, folders, capsys):
    inputs, outputs = folders
    good, other = sorted(inputs.iterdir())
    (inputs / "empty_0000.nii.gz").touch()
    (inputs / "cut_0000.nii.gz").write_bytes(good.read_bytes()[:700])
    shutil.copy(good, inputs / "channel_0001.nii.gz")
    shutil.copy(good, inputs / "unnamed.nii.gz")
    (inputs / "format_0000.mha").touch()
    (inputs / ".hidden.nii.gz").touch()
    (inputs / "note.txt").touch()
    volume = sitk.GetImageFromArray(np.zeros((8, 32, 32), np.int16))
    sitk.WriteImage(sitk.JoinSeries([volume, volume]), str(inputs / "four_0000.nii.gz"))
    assert main(make_words(root, inputs, outputs)) == 1
    names = {path.name.replace("_0000", "") for path in (good, other)}
    assert {path.name for path in outputs.iterdir()} == names
    named = [
        line.partition(": ")[2].partition(".")[0].partition("_0")[0]
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("not predicted")
    ]
    assert sorted(named) == ["channel", "cut", "empty", "format", "four", "unnamed"]


def test_unusable_folders_are_reported_before_anything_is_loaded(root, tmp_path, capsys):
    inputs = tmp_path / "in"
    inputs.mkdir()
    code = "import sys\nfrom semi_nnunet.challenge.entry import main\nstatus = main(sys.argv[1:])\n"
    code += "sys.exit(9 if 'torch' in sys.modules else status)"
    for folders, keyword in [
        ((tmp_path / "absent", inputs), "must be a folder of images"),
        ((inputs, tmp_path / "absent"), "make it and mount it there"),
        ((inputs, tmp_path / "opt" / ".." / "in"), "which could be overwritten"),
    ]:
        line = [sys.executable, "-c", code, *make_words(root, *folders)]
        process = subprocess.run(line, capture_output=True, text=True)
        assert (process.returncode, process.stdout) == (2, "") and keyword in process.stderr


def test_outputs_of_another_user_are_reported_with_a_fix(root, folders, monkeypatch, capsys):
    monkeypatch.setattr(entry.os, "access", lambda path, mode: False)
    assert main(make_words(root, *folders)) == 2
    assert f"user {os.getuid()}" in capsys.readouterr().err


def test_missing_images_and_models_are_different_errors(root, folders, capsys):
    for path in folders[0].iterdir():
        path.unlink()
    assert main(make_words(root, *folders)) == 2
    assert "no image CASE_0000.nii.gz" in capsys.readouterr().err
    shutil.rmtree(root / "model")
    assert main(make_words(root, *folders)) == 2
    assert "no trained model" in capsys.readouterr().err
    write_json(root / "submission.json", {"model": "x"})
    assert main(make_words(root, *folders)) == 2
    assert "speed, step, device, limit" in capsys.readouterr().err


def test_an_exceeded_time_limit_is_reported(root, folders, capsys):
    options = read_json(root / "submission.json")
    write_json(
        root / "submission.json", options | {"limit": 1e-6, "device": "cuda", "speed": "fast"}
    )
    assert main(make_words(root, *folders)) == 0
    captured = capsys.readouterr()
    assert "limit of 1e-06 s" in captured.out
    assert ("no GPU" in captured.err) != torch.cuda.is_available()


def test_the_check_finds_missing_files(root, capsys):
    predict_test_image(root)
    assert main([str(root), "--check"]) == 0
    checkpoint = next(root.glob("model/*/fold_0/*.pth"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert main([str(root), "--check"]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".nii.gz", ".png", ".tif", ".nrrd"])
def test_test_images_have_the_format_of_their_ending(ending, tmp_path):
    from skimage import io

    path = tmp_path / f"check_0000{ending}"
    write_test_image(path, (8, 12), 0)
    image = read(path) if ending in (".nii.gz", ".nrrd") else io.imread(path)
    assert image.shape[-2:] == (8, 12) and len(np.unique(image)) > 10


def test_a_flat_patch_of_slices_makes_a_volume_in_tiff(tmp_path):
    write_test_image(tmp_path / "check_0000.tif", (8, 12), 0, is_volume=True)
    array, _ = Tiff3DIO().read_images([str(tmp_path / "check_0000.tif")])
    assert array.shape[-2:] == (8, 12) and array.ndim == 4


def test_the_seconds_since_the_start_count_the_start_of_python():
    code = "import time; time.sleep(0.5)\n"
    code += "from semi_nnunet.challenge.entry import seconds_since_start as s; print(s())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 0.5 < float(process.stdout) < 60
    assert seconds_since_start() > 0
