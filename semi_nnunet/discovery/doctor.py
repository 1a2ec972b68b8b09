"""The checks of ``semi_nnunet doctor``: versions, devices, folders, trainers and data sets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import (
    _EnvPath,
    nnUNet_preprocessed,
    nnUNet_raw,
    nnUNet_results,
)

from semi_nnunet import __version__
from semi_nnunet.discovery.register import (
    EXTERNAL,
    TRAINERS_FOLDER,
    find_file_in_nnunet,
    find_startup_files,
)
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    SKIPPED_FILE,
    UNLABELLED_IMAGES,
    get_unlabelled_folder,
    read_dataset_number,
    read_skipped_cases,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

LOW_SPACE_GIB = 5.0
TOPIC_WIDTH = 21


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    >>> print(Finding("nnUNet_raw", "is not set", "export nnUNet_raw=/a/folder"))
    FIX  nnUNet_raw            is not set
                               -> export nnUNet_raw=/a/folder

    Args:
        topic: the package, device, folder or data set.
        state: a description of it.
        fix: what to do, or ``None`` if nothing is wrong.
    """

    topic: str
    state: str
    fix: str | None = None

    def __str__(self) -> str:
        line = f"{'ok  ' if self.fix is None else 'FIX '} {self.topic:<{TOPIC_WIDTH}} "
        if len(self.topic) > TOPIC_WIDTH:  # the state is on the next line
            line += "\n" + " " * (TOPIC_WIDTH + 6)
        line += self.state
        return line if self.fix is None else f"{line}\n{'':{TOPIC_WIDTH + 6}}-> {self.fix}"


def examine(with_datasets: bool = True) -> Iterator[Finding]:
    """Yield all findings, in the order of the screen; a check runs when its finding is needed.

    Args:
        with_datasets: include all raw data sets.
    """
    yield check_versions()
    yield from check_devices()
    yield from check_folders()
    yield check_trainers()
    if with_datasets:
        yield from check_datasets()


def check_versions() -> Finding:
    """Check the versions of Python and of the most important packages."""
    names = ("nnunetv2", "torch", "batchgeneratorsv2")
    installed = {name: importlib.metadata.version(name) for name in names}
    is_tested = installed["nnunetv2"].startswith("2.8.")
    fix = None if is_tested else "pip install 'nnunetv2>=2.8.1,<2.9': other versions are not tested"
    versions = {"Python": platform.python_version(), "semi_nnunet": __version__, **installed}
    return Finding("versions", ", ".join(f"{name} {versions[name]}" for name in versions), fix)


def check_devices() -> Iterator[Finding]:
    """Yield the devices that can train."""
    import torch  # takes seconds, after the first finding is on the screen

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = f"{device.total_memory / 2**30:.0f} GiB"
            yield Finding("device", f"cuda:{index} {device.name}, {memory}")
    elif torch.backends.mps.is_available():
        yield Finding("device", "Apple GPU: train with -device mps")
    else:
        advice = "train with -device cpu and the plans of semi_nnunet plan --budget cpu"
        yield Finding("device", f"no GPU, a CPU with {os.cpu_count()} cores: {advice}")


def check_folders() -> Iterator[Finding]:
    """Check nnU-Net's three folders and the space on them."""
    yield check_folder(nnUNet_raw, is_written=False)
    yield check_folder(nnUNet_preprocessed, is_written=True)
    yield check_folder(nnUNet_results, is_written=True)


def check_folder(path: _EnvPath, is_written: bool) -> Finding:
    """Check one of nnU-Net's folders; output folders need permission and space."""
    name, value = path.env_var_name, path.get()
    if not value:
        return Finding(name, "is not set", f"export {name}=/a/folder")
    if not Path(value).is_dir():
        return Finding(name, f"{value} does not exist", f"mkdir -p {shlex.quote(value)}")
    if is_written and not os.access(value, os.W_OK):
        fix = "choose another folder or change its permissions"
        return Finding(name, f"{value} is not writable", fix)
    free = shutil.disk_usage(value).free / 2**30
    is_low = is_written and free < LOW_SPACE_GIB
    low = f"less than {LOW_SPACE_GIB:.0f} GiB: make room"
    return Finding(name, f"{value}, {free:.0f} GiB free", low if is_low else None)


def check_trainers() -> Finding:
    """Check whether nnU-Net's commands find our trainers."""
    earlier = find_file_in_nnunet()
    if earlier is not None:
        state = f"an earlier version wrote {earlier} into nnU-Net's package"
        return Finding("trainers", state, "semi_nnunet register")
    if files := find_startup_files():
        return Finding("trainers", f"found in every shell, through {files[0]}")
    names = os.environ.get(EXTERNAL, "").split(os.pathsep)
    if TRAINERS_FOLDER.resolve() in [Path(name).resolve() for name in names if name]:
        return Finding("trainers", f"found in this shell, through {EXTERNAL}")
    fix = f'semi_nnunet register, or export {EXTERNAL}="$(semi_nnunet register --print)"'
    return Finding("trainers", "nnU-Net does not find ours", fix)


def check_datasets() -> Iterator[Finding]:
    """Check each raw data set."""
    raw, preprocessed = nnUNet_raw.get(), nnUNet_preprocessed.get()
    if not raw or not Path(raw).is_dir():
        return
    for folder in sorted(Path(raw).glob("Dataset[0-9][0-9][0-9]_*")):
        if not folder.is_dir():  # a zip, for example
            continue
        try:
            yield dataset(folder, Path(preprocessed) / folder.name if preprocessed else None)
        except UserError as error:  # the others are checked, too
            yield Finding(folder.name, error.what, error.fix or "correct this data set")


def dataset(folder: Path, preprocessed: Path | None) -> Finding:
    """Check whether all cases of a raw data set are preprocessed, and count them.

    Args:
        folder: of the raw data set.
        preprocessed: its folder in ``nnUNet_preprocessed``, or ``None``.
    """
    from semi_nnunet.raw.description import find_cases

    try:
        ending = read_json(folder / DATASET_JSON)["file_ending"]
        if not isinstance(ending, str):
            raise TypeError(f"'file_ending' must be a text, got {ending!r}")
    except (UserError, KeyError, TypeError) as error:
        return Finding(
            folder.name, f"dataset.json cannot be used ({error})", "correct dataset.json"
        )
    labelled = len(find_cases(folder / "imagesTr", ending))
    unlabelled = len(find_cases(folder / UNLABELLED_IMAGES, ending))
    counts = {} if preprocessed is None else count_preprocessed(preprocessed)
    skipped = 0 if preprocessed is None else len(read_skipped_cases(preprocessed))
    is_incomplete = any(
        count[0] < labelled or count[1] < unlabelled - skipped for count in counts.values()
    )
    fix = None
    if unlabelled and (is_incomplete or not counts):
        fix = f"semi_nnunet preprocess -d {read_dataset_number(folder)}"
    done = ", ".join(f"{name} {n[0]}+{n[1]}" for name, n in counts.items()) or "nothing"
    state = f"{labelled} labelled, {unlabelled} unlabelled; preprocessed: {done}"
    state += f" ({skipped} skipped for the reasons in {SKIPPED_FILE})" if skipped else ""
    return Finding(folder.name, state, fix)


def count_preprocessed(preprocessed: Path) -> dict[str, tuple[int, int]]:
    """Return preprocessed folder -> numbers of its labelled and unlabelled cases."""
    counts = {}
    for folder in sorted(path for path in preprocessed.glob("*") if path.is_dir()):
        by_nnunet = len(list(folder.glob("*_seg.b2nd")))
        ours = len(Manifest(folder).present())
        if (by_nnunet or ours) and not folder.name.endswith("_unlabeled"):
            unlabelled = get_unlabelled_folder(preprocessed, folder.name)
            counts[folder.name] = ours or by_nnunet, len(Manifest(unlabelled).present())
    return counts
