"""What organisers start: images of a folder become segmentations in another, and nothing else."""

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

from semi_nnunet.challenge import entry
from semi_nnunet.challenge.entry import check, made_up_image, main, seconds_since_start
from semi_nnunet.inference.predict import predict
from semi_nnunet.util.files import read_json, write_json
from tests.pseudo_labels.labelling import read


@pytest.fixture
def folders(pool, tmp_path) -> tuple[Path, Path]:
    """Two images, and an empty folder."""
    for path in sorted(pool.images.iterdir())[2:]:
        path.unlink()
    (tmp_path / "outputs").mkdir()
    return pool.images, tmp_path / "outputs"


def words(root: Path, *folders: Path) -> list[str]:
    return [str(one) for one in (root, *folders)]


def test_the_segmentations_are_those_of_predict_and_nothing_else_is_written(
    pool, root, folders, tmp_path, capsys
):
    inputs, outputs = folders
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    assert main(words(root, inputs, outputs)) == 0
    wanted = predict(pool.models[0].folder, inputs, tmp_path / "p", speed="exact", device="cpu")
    assert sorted(path.name for path in outputs.iterdir()) == [path.name for path in wanted]
    for path in wanted:
        assert np.array_equal(read(outputs / path.name), read(path))
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before
    said = capsys.readouterr()
    assert "ready to predict 2 images after" in said.out and "limit" not in said.out


def test_broken_images_are_named_and_the_others_are_predicted(root, folders, capsys):
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
    assert main(words(root, inputs, outputs)) == 1
    names = {path.name.replace("_0000", "") for path in (good, other)}
    assert {path.name for path in outputs.iterdir()} == names
    named = [
        line.partition(": ")[2].partition(".")[0].partition("_0")[0]
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("not predicted")
    ]
    assert sorted(named) == ["channel", "cut", "empty", "format", "four", "unnamed"]


def test_folders_that_cannot_be_used_are_told_before_anything_is_loaded(root, tmp_path, capsys):
    inputs = tmp_path / "in"
    inputs.mkdir()
    code = "import sys\nfrom semi_nnunet.challenge.entry import main\nstatus = main(sys.argv[1:])\n"
    code += "sys.exit(9 if 'torch' in sys.modules else status)"
    for folders, says in [
        ((tmp_path / "absent", inputs), "must be a folder of images"),
        ((inputs, tmp_path / "absent"), "make it and mount it there"),
        ((inputs, tmp_path / "opt" / ".." / "in"), "which could be overwritten"),
    ]:
        line = [sys.executable, "-c", code, *words(root, *folders)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "") and says in done.stderr


def test_outputs_of_another_user_are_told_with_the_fix(root, folders, monkeypatch, capsys):
    monkeypatch.setattr(entry.os, "access", lambda path, mode: False)
    assert main(words(root, *folders)) == 2
    assert f"writable for user {os.getuid()}" in capsys.readouterr().err


def test_no_image_and_a_model_that_is_gone_are_errors_of_their_own(root, folders, capsys):
    for path in folders[0].iterdir():
        path.unlink()
    assert main(words(root, *folders)) == 2
    assert "holds no image CASE_0000.nii.gz" in capsys.readouterr().err
    shutil.rmtree(root / "model")
    assert main(words(root, *folders)) == 2
    assert "no trained model" in capsys.readouterr().err
    write_json(root / "submission.json", {"model": "x"})
    assert main(words(root, *folders)) == 2
    assert "must have speed, step, device, limit" in capsys.readouterr().err


def test_a_limit_that_this_machine_does_not_keep_is_said(root, folders, capsys):
    how = read_json(root / "submission.json")
    write_json(root / "submission.json", how | {"limit": 1e-6, "device": "cuda", "speed": "fast"})
    assert main(words(root, *folders)) == 0
    said = capsys.readouterr()
    assert "takes longer than the limit of 1e-06 s" in said.out
    assert ("there is no GPU" in said.err) != torch.cuda.is_available()


def test_what_is_missing_is_found_by_the_check(root, capsys):
    check(root)
    assert main([str(root), "--check"]) == 0
    checkpoint = next(root.glob("model/*/fold_0/*.pth"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert main([str(root), "--check"]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".nii.gz", ".png", ".tif", ".nrrd"])
def test_made_up_images_are_of_the_format_that_their_ending_says(ending, tmp_path):
    from skimage import io

    path = tmp_path / f"check_0000{ending}"
    made_up_image(path, (8, 12), 0)
    image = read(path) if ending in (".nii.gz", ".nrrd") else io.imread(path)
    assert image.shape[-2:] == (8, 12) and len(np.unique(image)) > 10


def test_the_seconds_since_the_start_count_the_start_of_python():
    code = "import time; time.sleep(0.5)\n"
    code += "from semi_nnunet.challenge.entry import seconds_since_start as s; print(s())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 0.5 < float(done.stdout) < 60
    assert seconds_since_start() > 0
