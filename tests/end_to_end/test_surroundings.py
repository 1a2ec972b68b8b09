"""The way of a user from images to a report, in real processes and unusual environments."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.util.files import sha256_of_file

ROOT = Path(__file__).parents[2]
DATASET = "Dataset905_Umgebung"
PLANS = "nnUNetPlans_short"
SETTINGS = ("epochs=2", "steps_per_epoch=1", "validation_steps_per_epoch=1")


@dataclass
class Place:
    """nnU-Net's three folders, and the variables of the processes."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> Path:
        return self.root / "raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / DATASET

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """Start one of our commands."""
        folders = {f"nnUNet_{n}": str(self.root / n) for n in ("raw", "preprocessed", "results")}
        environment = {
            **os.environ, **folders, "nnUNet_extTrainer": str(TRAINERS_FOLDER), **self.variables,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "semi_nnunet", *map(str, words)],
            env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *words: object) -> str:
        """Run one of our commands, which must succeed; return its output."""
        process = self.start(*words)
        said = process.communicate(timeout=500)[0].decode("utf-8", "replace")
        assert process.returncode == 0 and "Traceback" not in said, said[-3000:]
        return said


def odd_path(place: Place) -> None:
    """Umlauts, spaces and quotes in every folder."""
    place.root = place.root / 'Universitätsklinik für Böses\'s "Kleine" Leber'


def without_asserts(place: Place) -> None:
    """Run ``python -O``."""
    place.variables["PYTHONOPTIMIZE"] = "1"


def turkish(place: Place) -> None:
    """Use Turkish Latin-5 for files without a declared encoding; i has another capital letter."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not here, which makes a locale")
    locales = place.root.parent / "locales"
    locales.mkdir()
    made = ["localedef", "-i", "tr_TR", "-f", "ISO-8859-9", str(locales / "tr_TR")]
    subprocess.run(made, check=False, capture_output=True)
    if not (locales / "tr_TR").is_dir():
        pytest.skip("localedef does not know Turkish here")
    place.variables |= {"LOCPATH": str(locales), "LC_ALL": "tr_TR", "PYTHONUTF8": "0"}


def linked_images(place: Place) -> None:
    """Make imagesUn a link to another folder whose images are links, too."""
    elsewhere, store = place.root / "elsewhere", place.root / "store"
    place.raw.joinpath("imagesUn").rename(store)
    elsewhere.mkdir()
    for image in store.iterdir():
        (elsewhere / image.name).symlink_to(image)
    place.raw.joinpath("imagesUn").symlink_to(elsewhere)


def skewed_clock(place: Place) -> None:
    """Date images to 1990 and 2090."""
    for number, path in enumerate(sorted(place.raw.rglob("*.nii.gz"))):
        seconds = 3_800_000_000 if number % 2 else 640_000_000
        os.utime(path, (seconds, seconds))


def make_raw(place: Place) -> None:
    write_phantom_dataset(place.raw, labelled=5, unlabelled=4, test=2, shape=(12, 40, 40))
    description = place.raw / "dataset.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    names = [name for name in content["labels"] if name != "background"]
    content["labels"] = {
        {names[0]: "Böbrek ığüşç"}.get(key, key): value for key, value in content["labels"].items()
    }
    description.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


AFTER = (linked_images, skewed_clock)  # the raw data are there


@pytest.mark.slow
@pytest.mark.parametrize(
    "surroundings",
    [(odd_path, without_asserts, linked_images, skewed_clock), (turkish,)],
    ids=lambda several: "-".join(one.__name__ for one in several),
)
def test_a_user_gets_from_images_to_a_report(
    surroundings: tuple[Callable[[Place], None], ...], tmp_path: Path
) -> None:
    place = Place(tmp_path / "nnunet")
    for surrounding in surroundings:
        if surrounding not in AFTER:
            surrounding(place)
    make_raw(place)
    for surrounding in surroundings:
        if surrounding in AFTER:
            surrounding(place)
    place.variables["PYTHONWARNINGS"] = "default"
    said = place.run("preprocess", "-d", 905, "-c", "2d", "-np", 1)
    tiny = ("--budget", "cpu", "--patch", 32, 32)
    said += place.run("plan", "-d", 905, "--new-plans", PLANS, *tiny, "--set", *SETTINGS)
    said += place.run("preprocess", "-d", 905, "-c", "2d", "-np", 1, "-p", PLANS)
    which = ("-d", 905, "-p", PLANS)
    trained = ("-c", "2d", "-f", 0, "-tr", "SemiMeanTeacherTrainer", "--device", "cpu")
    said += place.run("crossval", *which, *trained)
    assert "1 of 1 done" in place.run("status", *which)
    assert "1 done before" in place.run("crossval", *which, *trained)
    page = place.root / "Seite für alle.html"
    said += place.run("report", *which, "-o", page)
    text = page.read_text(encoding="utf-8")
    assert "Böbrek ığüşç" in text
    warned = re.findall(r"/semi_nnunet/\w+/\w+\.py:\d+: \w*Warning: .*", said)
    assert not warned, warned


@pytest.mark.slow
def test_raw_data_may_be_read_only(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    place = Place(tmp_path)
    make_raw(place)
    read_only(place.raw)
    place.run("preprocess", "-d", 905, "-c", "2d", "-np", 1)
    place.run("preprocess", "-d", 905, "-c", "2d", "-np", 1)


def contents(folder: Path) -> dict[str, str]:
    """Return path -> checksum of the preprocessed files, without times and logs."""
    return {
        str(path.relative_to(folder)): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".b2nd", ".nii.gz", ".gz")
    }


@pytest.mark.slow
def test_two_preprocess_at_once_leave_what_one_leaves(tmp_path: Path) -> None:
    alone, together = Place(tmp_path / "alone"), Place(tmp_path / "together")
    for place in (alone, together):
        make_raw(place)
    words = ("preprocess", "-d", 905, "-c", "2d", "-np", 1)
    alone.run(*words)
    both = [together.start(*words) for _ in range(2)]
    said = [process.communicate(timeout=500)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(said)
    assert contents(together.preprocessed) == contents(alone.preprocessed)


@pytest.mark.slow
def test_nothing_on_the_way_needs_what_windows_lacks(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("raw", "preprocessed", "results")}
    for folder in folders.values():
        folder.mkdir()
    variables = {f"nnUNet_{name}": str(folder) for name, folder in folders.items()}
    variables |= {"nnUNet_extTrainer": str(TRAINERS_FOLDER), "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.other_system", str(folders["raw"])],
        env={**os.environ, **variables}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-1500:] + process.stderr[-1500:]
    assert "fold 0 seed 0: running" not in process.stdout  # its lock is free again
