"""What ``semi_nnunet doctor`` looks at."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import (
    _EnvPath,
    nnUNet_extTrainer,
    nnUNet_preprocessed,
    nnUNet_raw,
    nnUNet_results,
)

from semi_nnunet import __version__
from semi_nnunet.data.layout import SKIPPED_FILE, UNLABELLED_IMAGES, set_aside, unlabelled_folder
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.discovery.register import TRAINERS_FOLDER, is_registered
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

LOW_SPACE_GIB = 5.0
TOPIC_WIDTH = 21


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``fix`` is None where all is well."""

    topic: str
    state: str
    fix: str | None = None

    def __str__(self) -> str:
        line = f"{'ok  ' if self.fix is None else 'MEND'} {self.topic:<{TOPIC_WIDTH}} "
        if len(self.topic) > TOPIC_WIDTH:  # the rest goes below a long name
            line += "\n" + " " * (TOPIC_WIDTH + 6)
        line += self.state
        return line if self.fix is None else f"{line}\n{'':{TOPIC_WIDTH + 6}}-> {self.fix}"


def examine(with_datasets: bool = True) -> Iterator[Finding]:
    """Everything there is to say, in the order of the screen; each is looked at when it is asked.

    Args:
        with_datasets: also of all raw data sets.
    """
    yield from versions()
    yield from devices()
    yield from paths()
    yield trainers()
    if with_datasets:
        yield from datasets()


def versions() -> Iterator[Finding]:
    """Python and the packages that matter."""
    names = ("nnunetv2", "torch", "batchgeneratorsv2")
    found = {name: importlib.metadata.version(name) for name in names}
    known = found["nnunetv2"].startswith("2.8.")
    fix = None if known else "pip install 'nnunetv2>=2.8.1,<2.9': other versions are not tested"
    versions = {"Python": platform.python_version(), "semi_nnunet": __version__, **found}
    yield Finding("versions", ", ".join(f"{name} {versions[name]}" for name in versions), fix)


def devices() -> Iterator[Finding]:
    """What can be trained on."""
    import torch  # takes seconds, and what is said before needs none

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = f"{device.total_memory / 2**30:.0f} GiB"
            yield Finding("device", f"cuda:{index} {device.name}, {memory}")
    elif torch.backends.mps.is_available():
        yield Finding("device", "Apple GPU: train with -device mps")
    else:
        how = "train with -device cpu and the plans of semi_nnunet plan --budget cpu"
        yield Finding("device", f"no GPU, a CPU with {os.cpu_count()} cores: {how}")


def paths() -> Iterator[Finding]:
    """nnU-Net's three folders and the space on them."""
    yield path_finding(nnUNet_raw, is_written=False)
    yield path_finding(nnUNet_preprocessed, is_written=True)
    yield path_finding(nnUNet_results, is_written=True)


def path_finding(path: _EnvPath, is_written: bool) -> Finding:
    """One of nnU-Net's folders; those that are written need permission and space."""
    name, value = path.env_var_name, path.get()
    if not value:
        return Finding(name, "is not set", f"export {name}=/a/folder")
    if not Path(value).is_dir():
        return Finding(name, f"{value} does not exist", f"mkdir -p {value}")
    if is_written and not os.access(value, os.W_OK):
        fix = "choose another folder or change its permissions"
        return Finding(name, f"{value} is not writable", fix)
    free = shutil.disk_usage(value).free / 2**30
    is_low = is_written and free < LOW_SPACE_GIB
    low = f"less than {LOW_SPACE_GIB:.0f} GiB: make room"
    return Finding(name, f"{value}, {free:.0f} GiB free", low if is_low else None)


def trainers() -> Finding:
    """Whether nnU-Net's commands find our trainers."""
    listed = (nnUNet_extTrainer.get() or "").split(os.pathsep)
    folders = [Path(folder).resolve() for folder in listed if folder]
    if is_registered():
        return Finding("trainers", "registered with the installed nnU-Net")
    if TRAINERS_FOLDER.resolve() in folders:
        return Finding("trainers", "found through nnUNet_extTrainer")
    fix = 'semi_nnunet register, or export nnUNet_extTrainer="$(semi_nnunet register --print)"'
    return Finding("trainers", "nnU-Net does not find them", fix)


def datasets() -> Iterator[Finding]:
    """Each raw data set with its counts."""
    raw, preprocessed = nnUNet_raw.get(), nnUNet_preprocessed.get()
    if not raw or not Path(raw).is_dir():
        return
    for folder in sorted(Path(raw).glob("Dataset[0-9][0-9][0-9]_*")):
        yield dataset(folder, Path(preprocessed) / folder.name if preprocessed else None)


def dataset(folder: Path, preprocessed: Path | None) -> Finding:
    """Counts of one data set: raw and ready for training, labelled and unlabelled."""
    from semi_nnunet.data.integrity import cases_in  # imports PyTorch

    try:
        ending = read_json(folder / "dataset.json")["file_ending"]
    except (UserError, KeyError) as error:
        return Finding(folder.name, f"dataset.json cannot be used ({error})", "mend dataset.json")
    labelled = len(cases_in(folder / "imagesTr", ending))
    unlabelled = len(cases_in(folder / UNLABELLED_IMAGES, ending))
    ready = {} if preprocessed is None else ready_cases(preprocessed)
    aside = 0 if preprocessed is None else len(set_aside(preprocessed))
    wanted = labelled, unlabelled - aside
    behind = any(have < want for n in ready.values() for have, want in zip(n, wanted, strict=True))
    fix = None
    if unlabelled and (behind or not ready):
        fix = f"semi_nnunet preprocess -d {int(folder.name[7:10])}"
    done = ", ".join(f"{name} {n[0]}+{n[1]}" for name, n in ready.items()) or "nothing"
    state = f"{labelled} labelled, {unlabelled} unlabelled; preprocessed: {done}"
    state += f" ({aside} set aside, {SKIPPED_FILE} says why)" if aside else ""
    return Finding(folder.name, state, fix)


def ready_cases(preprocessed: Path) -> dict[str, tuple[int, int]]:
    """Preprocessed folder -> numbers of labelled and unlabelled cases that are there."""
    ready = {}
    for folder in sorted(path for path in preprocessed.glob("*") if path.is_dir()):
        by_nnunet = len(list(folder.glob("*_seg.b2nd")))
        ours = len(Manifest(folder).present())
        if (by_nnunet or ours) and not folder.name.endswith("_unlabeled"):
            other = unlabelled_folder(preprocessed, folder.name)
            ready[folder.name] = ours or by_nnunet, len(Manifest(other).present())
    return ready
