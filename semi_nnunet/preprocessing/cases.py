"""nnU-Net's preprocessing, case by case: resumable, also for images without labels."""

from __future__ import annotations

import filecmp
import logging
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from semi_nnunet.preprocessing.case_facts import (
    compute_class_facts,
    compute_image_facts,
    compute_label_facts,
)
from semi_nnunet.preprocessing.manifest import (
    SOURCE_PARTS,
    Manifest,
    ManifestEntry,
    get_manifest_file,
)
from semi_nnunet.preprocessing.sparse import SparseConfiguration
from semi_nnunet.raw.layout import CHECKED_FILE, GROUND_TRUTH, get_unlabelled_folder
from semi_nnunet.raw.readers import SPACING_APART, get_spacing_file
from semi_nnunet.util.errors import DiskError, Problem, UserError
from semi_nnunet.util.files import (
    could_not_write,
    sha256_of_file,
    sha256_of_json,
    write_atomically,
    writing,
)
from semi_nnunet.util.names import format_count, list_first
from semi_nnunet.util.parallel import attempt_in_processes
from semi_nnunet.util.progress import with_progress
from semi_nnunet.util.provenance import read_state
from semi_nnunet.util.shards import Shard
from semi_nnunet.verify.reports import read_reports

logger = logging.getLogger(__name__)
LABELLED_ENDINGS = (".pkl", "_seg.b2nd", ".b2nd")  # the image last
UNLABELLED_ENDINGS = (".pkl", ".b2nd")
INTACT = "The cases finished earlier are complete and are kept"


@dataclass(frozen=True)
class Case:
    """A case to preprocess.

    Args:
        name: its identifier.
        images: the file of each channel.
        label: the label file, or None for an unlabelled case.
        content_hash: of the images' voxels, from the integrity check.
        spacing: of the voxels, in nnU-Net's order.
        states: path of each file, and its size, times and inode when it was checked; () if they
            are not known.
    """

    name: str
    images: tuple[str, ...]
    label: str | None
    content_hash: str
    spacing: tuple[float, ...] = ()
    states: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Its images, and its label if there is one."""
        return self.images if self.label is None else (*self.images, self.label)

    def require_unchanged(self) -> None:
        """Raise a UserError if a file is not the one that was checked, or is still being copied."""
        for path, state in self.states:
            if read_state(path) != tuple(state):
                raise UserError(f"{path} changed after its check", fix="repeat the command")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PreprocessingSpec:
    """The plans and labels by which cases are preprocessed."""

    plans: dict[str, Any]
    configuration: str
    dataset_json: dict[str, Any]

    @property
    def data_identifier(self) -> str:
        """Name of the folder of preprocessed cases."""
        manager = PlansManager(self.plans).get_configuration(self.configuration)
        return str(manager.data_identifier)

    @cached_property
    def digest(self) -> str:
        """Hash of what the result depends on; network, batch and our settings do not matter."""
        configuration = PlansManager(self.plans).get_configuration(self.configuration).configuration
        prefixes = ("spacing", "normalization", "use_mask", "resampling", "preprocessor")
        relevant = {key: configuration[key] for key in configuration if key.startswith(prefixes)}
        relevant["transpose_forward"] = self.plans["transpose_forward"]
        relevant["intensities"] = self.plans["foreground_intensity_properties_per_channel"]
        relevant["reader"] = self.plans["image_reader_writer"]
        relevant["labels"] = self.dataset_json["labels"]
        return sha256_of_json(relevant)[:16]

    def compute_source(self, case: Case) -> str:
        """Return hashes of a finished case's inputs: see :data:`SOURCE_PARTS`."""
        label = "" if case.label is None else sha256_of_file(case.label)
        image, label, spacing = shorten_hashes(case.content_hash, label, case.spacing)
        return f"{image}-{label}-{self.digest}-{spacing}"

    def is_made_from(self, entry: ManifestEntry, case: Case) -> bool:
        """Return whether a finished case was made from the present files and specification.

        Entries of earlier versions have no hash of the spacing, but the spacing itself.
        """
        source = self.compute_source(case)
        if entry.source.count("-") == source.count("-"):
            return entry.source == source
        spacing = entry.facts.get("spacing", case.spacing)
        return entry.source == source.rpartition("-")[0] and np.allclose(
            spacing, case.spacing, rtol=1e-5
        )


def shorten_hashes(image: str, label: str, spacing: tuple[float, ...]) -> tuple[str, str, str]:
    """Return the hashes of image, label and spacing as a manifest records them."""
    sizes = sha256_of_json({"spacing": [f"{value:.6g}" for value in spacing]})
    return image[:32], label[:16], sizes[:8]


def find_outdated_problems(
    spec: PreprocessingSpec, folder: Path, command: str
) -> Iterator[Problem]:
    """Yield a problem if the plans or the classes in dataset.json were edited after preprocessing.

    Args:
        spec: of the present plans and labels.
        folder: of the labelled cases; a folder without a manifest has no problem.
        command: that preprocesses them again.
    """
    part = SOURCE_PARTS.index("preprocessing")
    for cases in (folder, get_unlabelled_folder(folder.parent, folder.name)):
        outdated = [
            case
            for case, entry in Manifest(cases).present().items()
            if entry.source.split("-")[part] != spec.digest
        ]
        if outdated:
            yield Problem(
                str(cases),
                f"preprocessing of {format_count(outdated, 'case')} was for another spacing, "
                f"normalisation, resampling or other labels than those of "
                f"{spec.plans['plans_name']} and dataset.json now: {list_first(outdated)}",
                f"{command}; or undo the edit",
            )


def find_stale_cases(folder: Path, command: str) -> Iterator[Problem]:
    """Yield a problem if preprocessed cases were made from other files than the last check saw.

    ``preprocess`` checks all files, but prepares only the cases of its plans and configurations.
    Those of others are then older than the check.

    Args:
        folder: of the labelled cases.
        command: that preprocesses them again.
    """
    checked = read_checked_sources(folder.parent)
    unlabelled = get_unlabelled_folder(folder.parent, folder.name)
    for subset, cases in (("labelled", folder), ("unlabelled", unlabelled)):
        stale = [
            case
            for case, entry in Manifest(cases).present().items()
            if (now := checked.get((subset, case))) is not None
            # entries of earlier versions have no hash of the spacing
            if any(part != digest for part, digest in zip(split_source(entry), now, strict=False))
        ]
        if stale:
            message = f"{format_count(stale, 'case')} changed since preprocessing"
            yield Problem(str(cases), f"{message}: {list_first(stale)}", command)


def split_source(entry: ManifestEntry) -> list[str]:
    """Return the hashes of image, label and, of newer entries, spacing of a finished case."""
    parts = zip(SOURCE_PARTS, entry.source.split("-"), strict=False)
    return [digest for name, digest in parts if name != "preprocessing"]


def read_checked_sources(preprocessed: Path) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Return (subset, case) -> hashes of image, label and spacing in the last check of all files.

    Args:
        preprocessed: folder of the data set; without reports of a check there are no cases.
    """
    path = preprocessed / CHECKED_FILE
    return _read_checked_sources(path, read_state(path)) if path.is_file() else {}


@lru_cache(maxsize=1)
def _read_checked_sources(
    path: Path, state: tuple[int, ...]
) -> dict[tuple[str, str], tuple[str, str, str]]:
    return {
        (subset, case): shorten_hashes(
            report.content_hash,
            report.records[-1].digest if subset == "labelled" else "",
            report.geometry.spacing,
        )
        for (subset, case), report in read_reports(path).items()
        if report.content_hash and report.records and report.geometry
    }


def log_stage(stage: str) -> None:
    """Log a stage of the work; on a terminal the progress bars name it."""
    if not sys.stderr.isatty():
        logger.info(stage)


# ---- one case ----


def preprocess_case(
    case: Case, spec: PreprocessingSpec, folder: Path, temporary: Path
) -> ManifestEntry:
    """Preprocess one case: write its files to ``temporary``, then move them, the image last.

    An unlabelled case gets an image and properties, no segmentation.

    Raises:
        DiskError: its files could not be written; other errors come from the case.
    """
    source, temporary = spec.compute_source(case), temporary / case.name
    plans = PlansManager(spec.plans)
    configuration = plans.get_configuration(spec.configuration)
    preprocessor = configuration.preprocessor_class(verbose=False)
    ignore = spec.dataset_json["labels"].get("ignore")
    if ignore is not None and case.label is not None:
        configuration = SparseConfiguration(configuration, ignore)
    inputs = (list(case.images), case.label, plans, configuration, spec.dataset_json)
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(temporary, folder, state=INTACT):
        temporary.mkdir(parents=True)
    endings = UNLABELLED_ENDINGS if case.label is None else LABELLED_ENDINGS
    names = [f"{case.name}{ending}" for ending in endings]
    arrays = [preprocessor.run_case(*inputs)]
    preprocessor.run_case = lambda *_, **__: arrays.pop()  # run_case_save then only writes
    try:
        preprocessor.run_case_save(str(temporary / case.name), *inputs)
        facts = _read_facts(temporary, case.name, case.label is not None, ignore)
        case.require_unchanged()
        for name in names:
            (temporary / name).replace(folder / name)
        shutil.rmtree(temporary)
    except (OSError, RuntimeError) as error:  # blosc2 raises RuntimeError for any disk error
        defect = f"the preprocessed {case.name} to {folder}"
        raise could_not_write(defect, error, folder, state=INTACT) from error
    return ManifestEntry.of(case.name, source, [folder / name for name in names], facts)


def _read_facts(
    folder: Path, case: str, with_label: bool, ignore: int | None = None
) -> dict[str, Any]:
    """Compute the facts of a preprocessed case from its files, for the manifest."""
    image = blosc2.open(str(folder / f"{case}.b2nd"), mode="r")[:]
    properties = load_pickle(str(folder / f"{case}.pkl"))
    facts = compute_image_facts(image, properties)
    if with_label:
        facts |= compute_class_facts(image, properties["class_locations"])
        segmentation = blosc2.open(str(folder / f"{case}_seg.b2nd"), mode="r")[:]
        facts |= compute_label_facts(segmentation, ignore)
    return facts


# ---- many cases ----


def preprocess_cases(
    cases: Sequence[Case],
    spec: PreprocessingSpec,
    folder: Path,
    num_processes: int,
    title: str,
    shard: Shard[Any] | None = None,
) -> int:
    """Preprocess the cases that are not finished yet, and delete the files of all other cases.

    Args:
        cases: all cases of ``folder``, or of the shard.
        num_processes: up to 1 means in this process.
        shard: the part of the folder's cases to work on, None for all.

    Returns:
        The number of cases that were preprocessed now.

    Raises:
        UserError: with a problem for every case that failed; the others are finished.
        DiskError: at once, if the disk is full or not writable.
    """
    if shard is None:
        log_stage(f"preprocessing {title}: {format_count(cases, 'case')}")
    with writing(folder, folder, state=INTACT):
        folder.mkdir(parents=True, exist_ok=True)
    finished = find_finished(cases, spec, folder)
    remove_other_files(folder, finished, shard)
    todo = [case for case in cases if case.name not in finished]
    temporary = shard.aside if shard else folder.with_name(f"{folder.name}.tmp")
    manifest = Manifest(folder, None if shard is None else shard.finished)
    problems: list[Problem] = []
    preprocess = partial(preprocess_case, spec=spec, folder=folder, temporary=temporary)
    results = attempt_in_processes(preprocess, todo, num_processes)
    options = {"total": len(cases), "initial": len(finished), "unit": "case", "disable": None}
    with tqdm(desc=title, **options) as bar:
        for case, result in results if shard is None else with_progress(results, len(todo)):
            if isinstance(result, ManifestEntry):
                manifest.add(result)
            elif isinstance(result, DiskError):  # all other cases would fail, too
                results.close()
                shutil.rmtree(temporary, ignore_errors=True)
                raise result
            else:
                problems.append(describe_failure(case, result))
            bar.update()
    shutil.rmtree(temporary, ignore_errors=True)
    if problems:
        failed = f"{len(problems)} of {len(cases)} cases could not be preprocessed"
        raise UserError(f"{failed} (the others are finished and kept):", problems)
    return len(todo)


def find_finished(cases: Sequence[Case], spec: PreprocessingSpec, folder: Path) -> set[str]:
    """Return the cases whose files in ``folder`` are intact and made from the present inputs."""
    entries = Manifest(folder).read()
    return {
        case.name
        for case in cases
        if (entry := entries.get(case.name))
        and spec.is_made_from(entry, case)
        and entry.is_intact(folder)
    }


def describe_failure(case: Case, error: BaseException) -> Problem:
    """Return the problem of a case that could not be preprocessed."""
    defect = f"preprocessing failed ({type(error).__name__}: {error})"
    if isinstance(error, BrokenProcessPool):
        return Problem(
            case.name, defect, "its process was killed, probably for lack of memory: use -np 1"
        )
    return Problem(
        case.name, defect, "fix or remove the case, then run again; only unfinished cases are done"
    )


def remove_other_files(
    folder: Path, cases: Collection[str], shard: Shard[Any] | None = None
) -> None:
    """Delete the files of all cases except ``cases``; with a shard, only cases of the shard.

    Such files are of unfinished, outdated or removed cases.
    """
    for path in folder.iterdir():
        name = path.name.removesuffix(".pkl").removesuffix(".b2nd")
        if shard is not None and not shard.holds(name):
            continue
        if path.is_file() and name not in cases and name.removesuffix("_seg") not in cases:
            path.unlink()


# ---- labelled cases ----


def preprocess_labelled(
    cases: Sequence[Case], spec: PreprocessingSpec, preprocessed: Path, num_processes: int
) -> None:
    """Preprocess the labelled cases of a configuration; adopt cases that nnU-Net preprocessed."""
    folder = preprocessed / spec.data_identifier
    if adopt_stock_preprocessing(cases, spec, folder, preprocessed / GROUND_TRUTH):
        message = "%s: kept %d labelled cases that nnU-Net's own command preprocessed"
        logger.info(message, spec.configuration, len(cases))
    preprocess_cases(cases, spec, folder, num_processes, f"{spec.configuration}, labelled")


def adopt_stock_preprocessing(
    cases: Sequence[Case], spec: PreprocessingSpec, folder: Path, ground_truth: Path
) -> bool:
    """Write the missing manifest of a folder that nnU-Net's own command has preprocessed.

    nnU-Net copies the labels to ``ground_truth`` after all configurations. A folder is adopted only
    if all labels and readable files of all cases exist, and nothing else, neither labels nor images
    have changed since, and the smallest case is the same if it is preprocessed again: the plans may
    have been edited.

    Returns:
        Whether the folder was adopted.
    """
    if get_manifest_file(folder).exists() or not folder.is_dir() or not ground_truth.is_dir():
        return False
    label_ending = spec.dataset_json["file_ending"]
    expected = {f"{case.name}{ending}" for case in cases for ending in LABELLED_ENDINGS}
    copies = [ground_truth / f"{case.name}{label_ending}" for case in cases]
    if {path.name for path in folder.iterdir()} != expected or any(
        not copy.is_file()
        or not filecmp.cmp(str(case.label), copy, shallow=False)
        or not _is_newer(folder / f"{case.name}{LABELLED_ENDINGS[0]}", case.images)
        for case, copy in zip(cases, copies, strict=True)
    ):
        return False
    try:
        ignore = spec.dataset_json["labels"].get("ignore")
        facts = {case.name: _read_facts(folder, case.name, True, ignore) for case in cases}
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return False  # a file is damaged, so all are made again
    if not _is_repeatable(min(cases, key=_count_bytes), spec, folder):
        return False
    manifest = Manifest(folder)
    for case in cases:
        paths = [folder / f"{case.name}{ending}" for ending in LABELLED_ENDINGS]
        manifest.add(
            ManifestEntry.of(case.name, spec.compute_source(case), paths, facts[case.name])
        )
    return True


def _count_bytes(case: Case) -> int:
    return sum(os.stat(path).st_size for path in case.images)


def _is_repeatable(case: Case, spec: PreprocessingSpec, folder: Path) -> bool:
    """Return whether preprocessing a case again gives the voxels that ``folder`` holds."""
    with tempfile.TemporaryDirectory(prefix=".again_", dir=folder.parent) as name:
        again = Path(name)
        preprocess_case(case, spec, again, again / "tmp")
        for file in (f"{case.name}{ending}" for ending in LABELLED_ENDINGS[1:]):
            earlier = blosc2.open(str(folder / file), mode="r")[:]
            now = blosc2.open(str(again / file), mode="r")[:]
            if earlier.shape != now.shape or not np.allclose(earlier, now, atol=1e-3):
                return False
    return True


def _is_newer(made: Path, files: Iterable[str | Path]) -> bool:
    return all(os.stat(file).st_mtime <= made.stat().st_mtime for file in files)


def copy_ground_truth(cases: Sequence[Case], folder: Path, file_ending: str) -> None:
    """Copy new and changed labels to the folder that nnU-Net validates on; delete others.

    The files that hold the spacing of .tif go with them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = {folder / f"{case.name}{file_ending}": Path(str(case.label)) for case in cases}
    if file_ending in SPACING_APART:
        files = {
            get_spacing_file(target, is_label=True): get_spacing_file(source, is_label=True)
            for target, source in sources.items()
        }
        sources |= {target: source for target, source in files.items() if source.is_file()}
    endings = (file_ending, ".json") if file_ending in SPACING_APART else (file_ending,)
    for path in folder.iterdir():
        if path.name.endswith(endings) and path not in sources:
            path.unlink()
    for target, source in sources.items():
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            write_atomically(target, partial(shutil.copyfile, source))
