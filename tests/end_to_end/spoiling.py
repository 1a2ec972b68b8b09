"""A small valid data set, and ways to spoil one input."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.run.run_training import run_training_entry

from semi_nnunet.cli.main import main
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.conftest import no_processes
from tests.data.raw_datasets import (
    SHAPE,
    describe,
    flip_bit,
    label,
    make,
    truncate,
    voxels,
    write,
    write_nibabel,
)
from tests.deploy.test_install import MODEL, Gift, add, small_model

NAME = "Dataset001_Tiny"
A, B, U, V, T = (f"images{name}_0000.nii.gz" for name in ("Tr/a", "Tr/b", "Un/u", "Un/v", "Ts/t"))
LABEL_A, LABEL_B = "labelsTr/a.nii.gz", "labelsTr/b.nii.gz"
PREPROCESS = ("preprocess", "-d", "1", "-c", "2d", "3d_fullres", "-np", "1")


@dataclass(frozen=True)
class Bench:
    """A small valid data set, of two labelled, two unlabelled and one test case, to be spoilt."""

    folder: Path
    make_trainer: Callable[..., Any]

    @property
    def raw(self) -> Path:
        return self.folder / "raw" / NAME

    @property
    def preprocessed(self) -> Path:
        return self.folder / "preprocessed" / NAME

    def outcome(self) -> dict[str, int]:
        """Return the output files of commands with their times."""
        folders = [self.folder / name for name in ("preprocessed", "results")]
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
        return {
            str(path): path.stat().st_mtime_ns
            for path in files
            if not path.name.startswith("training_log")
        }


Spoil = Callable[[Bench], object]
Words = Callable[[Bench], tuple[str, ...]]


def run(words: tuple[str, ...]) -> int:
    """Run one of our verbs, or nnU-Net's training, as typed."""
    if words[0] != "nnUNetv2_train":
        with no_processes():
            return main(words)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*words, "-device", "cpu"])
        try:
            run_training_entry()
        except UserError as error:  # which our hook prints, and Python then exits with 1
            print(error, file=sys.stderr)
            return 1
        finally:
            torch.set_num_threads(threads)
    return 0


# ---- images and labels ----


def each(**spoils: Callable[[Path], object]) -> Spoil:
    """Spoil several files: u=... is imagesUn/u_0000.nii.gz, and so on."""
    files = {"a": A, "b": B, "u": U, "v": V, "t": T, "label_a": LABEL_A, "label_b": LABEL_B}

    def spoil(bench: Bench) -> None:
        for name, one in spoils.items():
            one(bench.raw / files[name])

    return spoil


def seed_of(path: Path) -> int:
    """Return the seed of a file: files with equal voxels count as leaks."""
    return sum(path.name.encode())


def truncated(keep: float) -> Callable[[Path], None]:
    """Keep the first part of a file, or drop some bytes."""
    return lambda path: truncate(path, keep)


def flipped(path: Path) -> None:
    write(path, voxels(2, (20, 20, 20)))
    flip_bit(path, 0.6)


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>404</html>", encoding="utf-8")


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def unreadable(path: Path) -> None:
    path.chmod(0)


def holding(value: float) -> Callable[[Path], None]:
    """Write an image with one voxel of a value."""

    def spoil(path: Path) -> None:
        array = voxels(seed_of(path), dtype=np.float32)
        array[1, 2, 3] = value
        write(path, array)

    return spoil


def full_of(value: float) -> Callable[[Path], None]:
    return lambda path: write(path, np.full(SHAPE, value, np.float32))


def labelled_with(value: float) -> Callable[[Path], None]:
    """Write a label with one voxel of a value."""

    def spoil(path: Path) -> None:
        array = label().astype(np.float32)
        array[0, 0, 0] = value
        write(path, array)

    return spoil


def on_grid(seed: int = 7, shape: tuple[int, ...] = SHAPE, **geometry: Any) -> Callable:
    """Move an image, or the label if the file is one."""

    def spoil(path: Path) -> None:
        is_label = path.parent.name == "labelsTr"
        write(path, voxels(seed, shape) % (2 if is_label else 1000), **geometry)

    return spoil


def in_format(ending: str, spoil: Spoil) -> Spoil:
    """Convert the data set to another format, then spoil it."""

    def anew(bench: Bench) -> None:
        shutil.rmtree(bench.raw)
        make(bench.raw, ending)
        spoil(bench)

    return anew


def with_channels(spoil: Spoil) -> Spoil:
    """Give the data set two channels, then spoil it."""

    def anew(bench: Bench) -> None:
        shutil.rmtree(bench.raw)
        make(bench.raw, channels=2)
        spoil(bench)

    return anew


def spaced(*pixdim: float) -> Callable[[Path], None]:
    return lambda path: write_nibabel(path, voxels(seed_of(path)), pixdim)


def without_place(path: Path) -> None:
    """Write NIfTI without qform and sform."""
    image = nib.Nifti1Image(voxels(7).T, None)
    image.header.set_zooms((1, 1, 2))
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, path)


def of_4d(path: Path) -> None:
    write_nibabel(path, voxels(0, (6, 7, 8, 5)))


def of_vectors(path: Path) -> None:
    array = voxels(0, (*SHAPE, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(path))


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.nii.gz")


def renamed(old: str, new: str, label_too: bool = False) -> Spoil:
    def spoil(bench: Bench) -> None:
        for name, end in [(old, "_0000"), *([("labelsTr/" + old[-1], "")] * label_too)]:
            path = bench.raw / f"{name}{end}.nii.gz"
            path.rename(path.with_name(f"{new}{end}.nii.gz"))

    return spoil


def in_several_places(bench: Bench) -> None:
    raw = bench.raw
    (raw / "labelsUn").mkdir()
    shutil.copy(raw / LABEL_A, raw / "labelsUn/u.nii.gz")
    write(raw / "imagesUn/a_0000.nii.gz", voxels(91))
    write(raw / "imagesUn/t_0000.nii.gz", voxels(92))
    content = gzip.decompress((raw / B).read_bytes())
    (raw / V).write_bytes(gzip.compress(content, 1))  # its bytes differ, its voxels do not


def copied(source: str, target: str) -> Spoil:
    return lambda bench: shutil.copy(bench.raw / source, bench.raw / target)


def described(**changes: Any) -> Spoil:
    return lambda bench: describe(bench.raw, **changes)


def listed_ids(*ids: str) -> Spoil:
    """List labelled cases in dataset.json under other names."""
    entry = {"images": [A], "label": LABEL_A}
    return described(numTraining=len(ids), dataset=dict.fromkeys(ids, entry))


def without(*names: str) -> Spoil:
    def spoil(bench: Bench) -> None:
        for name in names:
            path = bench.raw / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda bench: [spoil(bench) for spoil in spoils]


ONE_LABELLED = both(without(B, LABEL_B), described(numTraining=1))


def planned(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Preprocess the valid data set, then change its plans."""

    def spoil(bench: Bench) -> None:
        kept = bench.folder / "kept"
        if kept.is_dir():
            shutil.copytree(kept, bench.preprocessed)
        else:
            run(PREPROCESS)
            shutil.copytree(bench.preprocessed, kept)
        path = bench.preprocessed / "nnUNetPlans.json"
        write_json(path, change(read_json(path)))

    return spoil


def of_two_channels(plans: dict[str, Any]) -> dict[str, Any]:
    for one in plans["configurations"].values():
        one |= {"normalization_schemes": ["ZScoreNormalization"] * 2}
    return plans


def as_of_old(plans: dict[str, Any]) -> dict[str, Any]:
    for one in plans["configurations"].values():
        del one["architecture"]
    return plans


def other_checkpoint(**of: Any) -> Spoil:
    """Put the checkpoint of another training where nnUNetv2_train --c looks for one."""

    def spoil(bench: Bench) -> None:
        options = {"trainer": "SemiMeanTeacherTrainer", **of}
        if "labels" in options:
            source = bench.make_trainer.dataset
            description = {**source.dataset_json, "labels": options.pop("labels")}
            options["dataset"] = SimpleNamespace(plans=source.plans, dataset_json=description)
        trainer = bench.make_trainer(start=False, **options)
        trainer.initialize()
        aside = bench.folder / "other.pth"
        trainer.save_checkpoint(str(aside))
        results = Path(os.environ["nnUNet_results"])
        shutil.rmtree(results)
        fold = results / trainer.plans_manager.dataset_name
        fold /= "SemiMeanTeacherTrainer__nnUNetPlans__2d/fold_0"
        fold.mkdir(parents=True)
        aside.rename(fold / "checkpoint_latest.pth")

    return spoil


def continued(bench: Bench) -> tuple[str, ...]:
    number = str(bench.make_trainer.dataset.number)
    return ("nnUNetv2_train", number, "2d", "0", "-tr", "SemiMeanTeacherTrainer", "--c")


def hostile_model(bench: Bench) -> None:
    """Write a model whose checkpoint makes a folder when it is unpickled."""
    small_model(bench.folder, gift=Gift(bench.folder / "executed"))
    model = bench.folder / "made" / MODEL
    plans = {"image_reader_writer": "SimpleITKIO", "plans_name": "nnUNetPlans"}
    network = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    stage = {"architecture": {"network_class_name": network}, "data_identifier": "x"}
    write_json(model / "plans.json", {**plans, "configurations": {"2d": stage}})
    channels, labels = {"0": "CT"}, {"background": 0, "organ": 1}
    description = {"channel_names": channels, "labels": labels, "file_ending": ".nii.gz"}
    write_json(model / "dataset.json", {**description, "numTraining": 1})


def labelled_by_it(bench: Bench) -> tuple[str, ...]:
    images, out = bench.raw / "imagesUn", bench.folder / "results/labels"
    model = bench.folder / "made" / MODEL
    words = ("pseudo-label", "-i", images, "-o", out, "-m", model, "--device", "cpu")
    return tuple(map(str, words))


def hostile_zip(bench: Bench) -> None:
    archive = small_model(bench.folder)
    add(archive, "../outside.txt")
    add(archive, "/tmp/outside.txt")
    add(archive, f"{MODEL}/link", b"/etc", stat.S_IFLNK | 0o777)
    add(archive, f"{MODEL}/notes.txt", bytes(20 * 2**20))


def zip_over_a_model(bench: Bench) -> None:
    assert main(["install", str(small_model(bench.folder))]) == 0
    small_model(bench.folder, weight=2.0)


def install(bench: Bench) -> tuple[str, ...]:
    return ("install", str(bench.folder / "model.zip"))


def pseudo_labelled(spoil: Callable[[Path], object]) -> Spoil:
    """Add a training case with a pseudo label, as pseudo-dataset writes it."""

    def taken(bench: Bench) -> None:
        (bench.raw / U).rename(bench.raw / "imagesTr/u_0000.nii.gz")
        spoil(bench.raw / "labelsTr/u.nii.gz")
        describe(bench.raw, numTraining=3)

    return taken
