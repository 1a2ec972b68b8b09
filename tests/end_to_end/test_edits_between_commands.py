"""Data are edited by hand between commands, and no command yields a number of the old data.

Hypothesis draws edits and commands. Whatever a command yields (preprocessed arrays, fingerprint,
plans, predictions, Dice) must equal what the same commands yield in empty folders. A command may
refuse instead; then its advice is followed to the letter, until it works or repeats itself.

More examples, each longer: ``HYPOTHESIS_PROFILE=torture pytest THIS_FILE``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

import semi_nnunet
from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.preprocessing.manifest import Manifest, get_manifest_file
from semi_nnunet.raw.layout import METRICS_FILE
from semi_nnunet.util.errors import UserError
from tests.end_to_end.in_process import all_in_process

NAME, NUMBER, ENDING = "Dataset701_Edited", "701", ".nii"  # uncompressed files have equal sizes
TRAINER, STOCK = "SemiMeanTeacherTrainer", "nnUNetTrainer"
TINY = {
    "epochs": 1, "steps_per_epoch": 1, "validation_steps_per_epoch": 1, "labelled_batch_size": 2,
    "unlabelled_batch_size": 2, "ramp_up": "constant", "unlabelled_start_steps": 0,
}  # fmt: skip
PROFILES = {  # examples, steps of each
    "default": (3, 6),
    "torture": (60, 12),
}
PATIENCE = 8  # times that advice is followed before a command must have worked
REMOVE_IT = re.compile(r"^\s*(/\S+): .*\bFix: (?:re)?move it\b", re.MULTILINE)
MISPLACED = re.compile(r"(labelsT[rs]/\S+): label must lie on the voxels of (imagesT[rs]/\S+),")
ADVISED = re.compile(r"(?:[Mm]ove|[Rr]emove) (/\S+?)(?: away|[,;:.]? |[,;:.]?$)", re.MULTILINE)


class World:
    """nnU-Net's three folders with one data set."""

    def __init__(self, root: Path):
        self.root = root
        self.raw, self.preprocessed, self.results = (
            root / name / NAME for name in ("raw", "preprocessed", "results")
        )

    @property
    def fold(self) -> Path:
        return self.results / f"{TRAINER}__nnUNetPlans__2d" / "fold_0"

    @property
    def plans_file(self) -> Path:
        return self.preprocessed / "nnUNetPlans.json"

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let commands inside the block use these folders."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("raw", "preprocessed", "results"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
                patch.setenv(f"nnUNet_{name}", str(self.root / name))
            yield

    # ---- commands

    def prepare(self) -> None:
        with self.used():
            semi_nnunet.preprocess(NUMBER, ["2d"], processes=1)

    def plan(self) -> None:
        with self.used():
            semi_nnunet.plan(NUMBER, settings=TINY)

    def crossval(self, steps: tuple[str, ...] = ("train", "predict", "evaluate")) -> None:
        with self.used():
            launcher = semi_nnunet.Launcher(device="cpu")
            semi_nnunet.crossval(
                NUMBER, ["2d"], [TRAINER], folds=["0"], stages=steps, launcher=launcher
            )

    def evaluate(self) -> None:
        with self.used():
            semi_nnunet.evaluate(self.fold / "test", self.raw / "labelsTs", processes=1)

    def predict(self, out: Path, resume: bool) -> None:
        with self.used():
            semi_nnunet.predict(self.fold, self.raw / "imagesTs", out, device="cpu", resume=resume)

    def compare(self, values: Path) -> str:
        with self.used():
            return semi_nnunet.compare(NUMBER, write_values=values)

    # ---- what they yield

    def read_arrays(self) -> dict[str, Any]:
        """Return everything that preprocessing yields."""
        content: dict[str, Any] = {}
        for folder in ("nnUNetPlans_2d", "nnUNetPlans_2d_unlabeled"):
            for case in Manifest(self.preprocessed / folder).present():
                for path in (self.preprocessed / folder).glob(f"{case}*"):
                    content[f"{folder}/{path.name}"] = read(path)
        for path in (self.preprocessed / "gt_segmentations").iterdir():
            content[f"gt/{path.name}"] = read(path)
        content["fingerprint"] = read(self.preprocessed / "dataset_fingerprint.json")
        plans = read(self.plans_file)
        content["plans"] = plans["configurations"]["2d"]
        content["intensities"] = plans["foreground_intensity_properties_per_channel"]
        return content

    def read_results(self) -> dict[str, Any]:
        """Return the settings, predictions and measures of the training."""
        content: dict[str, Any] = {}
        for subset in ("validation", "test"):
            for path in (self.fold / subset).glob(f"*{ENDING}"):
                content[f"{subset}/{path.name}"] = read(path)
            content[f"{subset}/measures"] = read_measures(self.fold / subset / METRICS_FILE)
        record = read(self.fold / "semi_settings.json")
        content["settings"] = {k: entry["value"] for k, entry in record["settings"].items()}
        content["cases"] = record["cases"]
        return content


def read(path: Path) -> Any:
    """Return the content of a file, without times and places."""
    if path.suffix == ".b2nd":
        return blosc2.open(str(path), mode="r")[:]
    if path.suffix == ".pkl":
        properties = pickle.loads(path.read_bytes())
        return {key: properties[key] for key in sorted(properties)}
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    return path.read_bytes()


def read_measures(path: Path) -> dict[tuple[str, str], str]:
    """Return (case, class) -> Dice, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["case"], row["class"]): row["dice"] for row in csv.DictReader(file)}


def find_differences(ours: dict[str, Any], fresh: dict[str, Any]) -> list[str]:
    """Return the names of what differs."""
    return [
        name
        for name in sorted({*ours, *fresh})
        if name not in ours or name not in fresh or not equal(ours[name], fresh[name])
    ]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


# ---- fresh runs ----


class FreshRuns:
    """Results of the same commands in empty folders, made when asked for, once for each input."""

    def __init__(self, root: Path):
        self.root = root

    def of(self, world: World, edits: dict[str, Any]) -> World:
        """Return folders with the raw data set of a world, and nothing else done yet.

        Args:
            edits: keys of the configuration 2d that the user edited in the plans.
        """
        digest = hashlib.sha256(json.dumps(edits, sort_keys=True).encode())
        for path in sorted(world.raw.rglob("*")):
            if path.is_file():
                digest.update(str(path.relative_to(world.raw)).encode() + path.read_bytes())
        fresh = World(self.root / digest.hexdigest()[:16])
        if not fresh.raw.is_dir():
            shutil.copytree(world.raw, fresh.raw)
        return fresh

    def prepare(self, world: World, edits: dict[str, Any]) -> World:
        fresh = self.of(world, edits)
        if not fresh.preprocessed.is_dir():
            fresh.prepare()
            if edits:
                edit_plans(fresh, edits)
                fresh.prepare()
        return fresh

    def train(self, world: World, edits: dict[str, Any]) -> World:
        fresh = self.prepare(world, edits)
        if not fresh.results.is_dir():
            fresh.plan()
            fresh.crossval()
        return fresh


def edit_plans(world: World, edits: dict[str, Any]) -> None:
    plans = read(world.plans_file)
    plans["configurations"]["2d"] |= edits
    world.plans_file.write_text(json.dumps(plans))


# ---- the machine ----


class Edits(RuleBasedStateMachine):
    """Edits and commands; each command that succeeds is compared with a fresh run."""

    template: World
    fresh: FreshRuns
    read_output: Callable[[], str]
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @initialize()
    def begin(self) -> None:
        root = self.folder / "world"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.template.root, root)
        self.world, self.edits = World(root), dict[str, Any]()
        self.predictions = root / "predictions"

    # ---- following advice

    def attempt(self, command: Callable[[], Any]) -> str:
        """Run a command; follow the advice of errors and warnings until it works without any.

        Returns:
            What it printed.
        """
        heard = list[str]()
        while True:
            self.read_output()
            try:
                command()
                output = self.read_output()
                advice = "\n".join(line for line in output.splitlines() if "WARNING" in line)
            except UserError as error:
                output = advice = f"{error}\n{self.read_output()}"
            self.note_plans()
            if not self.follow(advice):
                assert advice != output, f"no advice helps: {output}"
                return output
            heard.append(advice)
            assert len(heard) < PATIENCE and heard[-2:].count(advice) < 2, "\n".join(heard)

    def follow(self, advice: str) -> bool:
        """Do what an error or a warning says; return whether it says anything."""
        done = False
        for path in map(Path, [*ADVISED.findall(advice), *REMOVE_IT.findall(advice)]):
            if path.is_dir():
                shutil.rmtree(path)
                done = True
            elif path.exists():
                path.unlink()
                done = True
        for label, image in MISPLACED.findall(advice):
            content = sitk.ReadImage(self.world.raw / label)
            content.CopyInformation(sitk.ReadImage(self.world.raw / image))
            sitk.WriteImage(content, self.world.raw / label)
            done = True
        if "semi_nnunet preprocess" in advice:
            self.attempt(self.world.prepare)
            done = True
        return done or "repeat the command" in advice or "again" in advice

    def note_plans(self) -> None:
        """Forget edits of plans that were planned anew, as warnings say."""
        current = read(self.world.plans_file)["configurations"]["2d"]
        if any(current[key] != value for key, value in self.edits.items()):
            self.edits = {}

    # ---- edits

    def pick(self, folder: str, number: int) -> Path:
        paths = sorted((self.world.raw / folder).glob(f"*{ENDING}"))
        return paths[number % len(paths)]

    @rule(
        number=st.integers(0, 9),
        folder=st.sampled_from(["labelsTr", "labelsTs"]),
        moved=st.booleans(),
    )
    def edit_label(self, number: int, folder: str, moved: bool) -> None:
        def change(array: np.ndarray) -> np.ndarray:
            return np.roll(array, 5, axis=-1) if moved else np.where(array == 1, 2, array)

        change_file(self.pick(folder, number), change)

    @rule(
        number=st.integers(0, 9), factor=st.sampled_from([0.5, 2.0, -1.0]),
        folder=st.sampled_from(["imagesTr", "imagesUn", "imagesTs"]),
    )  # fmt: skip
    def replace_image(self, number: int, factor: float, folder: str) -> None:
        """Another image of the same size and time."""
        path = self.pick(folder, number)
        times = path.stat()
        change_file(path, lambda array: (array * factor + 0.25).astype(array.dtype))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    @rule(
        one=st.integers(0, 9), step=st.integers(1, 2),
        folder=st.sampled_from(["imagesTr", "imagesUn", "imagesTs", "labelsTr", "labelsTs"]),
    )  # fmt: skip
    def exchange(self, one: int, step: int, folder: str) -> None:
        first, second = self.pick(folder, one), self.pick(folder, one + step)
        if first != second:
            aside = first.with_name("aside")
            first.rename(aside), second.rename(first), aside.rename(second)

    @rule(number=st.integers(0, 9), folder=st.sampled_from(["Tr", "Un", "Ts"]))
    def correct_spacing(self, number: int, folder: str) -> None:
        image = self.pick(f"images{folder}", number)
        label = self.world.raw / f"labels{folder}" / image.name.replace(f"_0000{ENDING}", ENDING)
        for path in (image, label):
            if path.is_file():
                content = sitk.ReadImage(path)
                content.SetSpacing([1.25 * size for size in content.GetSpacing()])
                sitk.WriteImage(content, path)

    @rule(number=st.integers(0, 9))
    def add_labelled(self, number: int) -> None:
        if len(list((self.world.raw / "imagesTr").iterdir())) > 5:
            return
        image = self.pick("imagesTr", number)
        label = self.world.raw / "labelsTr" / image.name.replace(f"_0000{ENDING}", ENDING)
        self.count += 1
        for path in (image, label):
            added = path.with_name(f"new{self.count}_{path.name.partition('_')[2]}")
            shutil.copy(path, added)
            if path == image:
                self.replace_copy(added)
        description = read(self.world.raw / "dataset.json")
        description["numTraining"] += 1
        (self.world.raw / "dataset.json").write_text(json.dumps(description))

    @rule(number=st.integers(0, 9), removed=st.booleans())
    def add_or_remove_unlabelled(self, number: int, removed: bool) -> None:
        path, count = (
            self.pick("imagesUn", number),
            len(list((self.world.raw / "imagesUn").iterdir())),
        )
        if removed and count > 2:
            path.unlink()
        elif not removed and count < 6:
            self.count += 1
            copy = path.with_name(f"new{self.count}_0000{ENDING}")
            shutil.copy(path, copy)
            self.replace_copy(copy)

    def replace_copy(self, path: Path) -> None:
        """Make the copy of an image another image."""
        change_file(path, lambda array: (array * (1 + 0.1 * self.count)).astype(array.dtype))

    @rule(
        edit=st.sampled_from(
            [{"spacing": [1.5, 1.5]}, {"normalization_schemes": ["NoNormalization"]}]
        )
    )
    def edit_plans(self, edit: dict[str, Any]) -> None:
        edit_plans(self.world, edit)
        self.edits |= edit

    @rule()
    def exchange_label_names(self) -> None:
        path = self.world.raw / "dataset.json"
        description = read(path)
        labels = description["labels"]
        labels["pair"], labels["small"] = labels["small"], labels["pair"]
        path.write_text(json.dumps(description))

    # ---- damage

    @rule(
        number=st.integers(0, 20), share=st.sampled_from([0, 2]),
        kind=st.sampled_from(
            ["labelled", "unlabelled", "reference", "list", "prediction", "checkpoint", "table"]
        ),
    )  # fmt: skip
    def damage(self, number: int, share: int, kind: str) -> None:
        """Cut a file to half, or nothing."""
        folder = self.world.preprocessed / "nnUNetPlans_2d"
        files = {
            "labelled": sorted(folder.glob("*")),
            "unlabelled": sorted(folder.with_name(f"{folder.name}_unlabeled").glob("*")),
            "reference": sorted((self.world.preprocessed / "gt_segmentations").glob("*")),
            "list": [get_manifest_file(folder), get_manifest_file(f"{folder}_unlabeled")],
            "prediction": sorted(self.world.fold.glob(f"*/*{ENDING}")),
            "checkpoint": [self.world.fold / "checkpoint_final.pth"],
            "table": sorted(self.world.fold.glob("*/*.csv"))
            + sorted(self.world.fold.glob("*/*.json")),
        }[kind]
        files = [path for path in files if path.is_file()]
        if kind in ("prediction", "checkpoint"):
            share = 0
        if files:
            path = files[number % len(files)]
            os.truncate(path, path.stat().st_size // share if share else 0)

    # ---- commands

    @rule()
    def prepare(self) -> None:
        self.attempt(self.world.prepare)
        ours = self.world.read_arrays()
        fresh = self.fresh.prepare(self.world, self.edits).read_arrays()
        assert find_differences(ours, fresh) == []

    @rule()
    def plan(self) -> None:
        self.attempt(self.world.plan)

    @rule()
    def train(self) -> None:
        self.attempt(lambda: self.world.crossval(("train",)))

    @rule()
    def crossval(self) -> None:
        self.attempt(self.world.crossval)
        ours = self.world.read_results()
        assert find_differences(ours, self.fresh.train(self.world, self.edits).read_results()) == []

    @rule()
    def evaluate(self) -> None:
        if any((self.world.fold / "test").glob(f"*{ENDING}")):
            try:
                self.world.evaluate()
            except UserError:
                return

    @rule(resume=st.booleans())
    def predict(self, resume: bool) -> None:
        if not (self.world.fold / "checkpoint_final.pth").is_file():
            return
        try:
            self.world.predict(self.predictions, resume)
        except UserError as error:
            refused = str(error)
            assert str(self.predictions) in refused or "checkpoint" in refused, refused
            shutil.rmtree(self.predictions, ignore_errors=True)
            return
        again = self.folder / "again"
        shutil.rmtree(again, ignore_errors=True)
        self.world.predict(again, resume=False)
        ours, fresh = (
            {path.name: path.read_bytes() for path in folder.glob(f"*{ENDING}")}
            for folder in (self.predictions, again)
        )
        assert find_differences(ours, fresh) == []

    @rule()
    def compare(self) -> None:
        path = self.folder / "values.csv"
        path.unlink(missing_ok=True)
        try:
            text = self.world.compare(path)
        except UserError as error:
            text = str(error)
        if not path.is_file() or is_named(text):
            return
        fresh = self.fresh.train(self.world, self.edits).read_results()
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                expected = fresh[f"{row['subset']}/measures"].get((row["case"], row["class"]), "")
                assert float(row["dice"] or "nan") == pytest.approx(
                    float(expected or "nan"), abs=1e-5, nan_ok=True
                ), row


def is_named(text: str) -> bool:
    """Return whether a table says that its trainings are of other data."""
    return "changed since preprocessing" in text or "before a change" in text


def change_file(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the voxels of a file."""
    image = sitk.ReadImage(path)
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, path)


# A longer search found these: outdated numbers, a traceback, and advice that could not be followed.
FOUND = (
    (("edit_plans", {"edit": {"normalization_schemes": ["NoNormalization"]}}), ("compare", {})),
    (("damage", {"kind": "reference", "number": 0, "share": 0}), ("plan", {})),
    (("damage", {"kind": "reference", "number": 0, "share": 0}), ("crossval", {})),
    (("exchange_label_names", {}), ("compare", {})),
    (
        ("correct_spacing", {"folder": "Tr", "number": 3}),
        ("exchange", {"folder": "imagesTr", "one": 5, "step": 2}),
        ("prepare", {}),
    ),
    (
        ("correct_spacing", {"folder": "Ts", "number": 4}),
        ("exchange", {"folder": "imagesTs", "one": 4, "step": 1}),
        ("crossval", {}),
    ),
    (("damage", {"kind": "checkpoint", "number": 0, "share": 0}), ("crossval", {})),
)


def follow_sequence(rules: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Apply rules in a given order."""
    machine = Edits()
    machine.begin()
    for name, arguments in rules:
        getattr(machine, name)(**arguments)


@pytest.mark.slow
def test_no_command_yields_a_number_of_data_before_an_edit(tmp_path, capsys, monkeypatch) -> None:
    examples, steps = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "default")]
    examples = int(os.environ.get("EDITS_EXAMPLES", examples))
    template = World(tmp_path / "template")
    write_phantom_dataset(
        template.raw, labelled=4, unlabelled=3, test=2, shape=(2, 24, 24), file_ending=ENDING
    )
    with all_in_process():
        template.prepare()
        template.plan()
        template.crossval()
        Edits.template, Edits.fresh = template, FreshRuns(tmp_path / "fresh")
        Edits.folder = tmp_path
        Edits.read_output = staticmethod(lambda: "".join(capsys.readouterr()))
        for rules in FOUND:
            follow_sequence(rules)
        run_state_machine_as_test(
            Edits,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, database=None,
                derandomize="HYPOTHESIS_PROFILE" not in os.environ,
                suppress_health_check=list(HealthCheck), print_blob=True,
                phases=[Phase.generate] if "NO_SHRINK" in os.environ else list(Phase),
            ),
        )  # fmt: skip
