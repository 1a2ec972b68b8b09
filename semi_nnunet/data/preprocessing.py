"""nnU-Net's preprocessing, case by case: interruptible, resumable, and for images without labels, too."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from semi_nnunet.data.fingerprint import image_facts
from semi_nnunet.data.layout import manifest_file
from semi_nnunet.data.manifest import Entry, Manifest
from semi_nnunet.errors import Problem, UserError


@dataclass(frozen=True)
class Case:
    """A case to preprocess.

    Args:
        name: its identifier.
        images: the file of each channel.
        label: the label file, or None for an unlabelled case.
        content_hash: of the images' voxels, from the integrity check.
    """

    name: str
    images: tuple[str, ...]
    label: str | None
    content_hash: str


@dataclass(frozen=True)
class Recipe:
    """How to preprocess: everything besides the case that its result depends on."""

    plans: dict[str, Any]
    configuration: str
    dataset_json: dict[str, Any]

    def fingerprint(self) -> str:
        """Hash of what preprocessing depends on; the network, the batch and our settings do not matter."""
        configuration = PlansManager(self.plans).get_configuration(self.configuration).configuration
        relevant = {
            key: value
            for key, value in configuration.items()
            if key.startswith(
                ("spacing", "normalization", "use_mask", "resampling", "preprocessor")
            )
        }
        relevant["transpose_forward"] = self.plans["transpose_forward"]
        relevant["intensities"] = self.plans["foreground_intensity_properties_per_channel"]
        relevant["reader"] = self.plans["image_reader_writer"]
        relevant["labels"] = self.dataset_json["labels"]
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def source_of(self, case: Case) -> str:
        """What a finished case was made from: images, label and recipe."""
        label = (
            ""
            if case.label is None
            else hashlib.sha256(Path(case.label).read_bytes()).hexdigest()[:16]
        )
        return f"{case.content_hash[:32]}-{label}-{self.fingerprint()}"


def preprocess_case(case: Case, recipe: Recipe, source: str, folder: Path) -> Entry:
    """Preprocess one case into ``folder``: written aside, then renamed, the image last.

    An unlabelled case gets an image and properties, no segmentation.
    """
    aside = folder.with_name(folder.name + ".tmp") / case.name
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    plans = PlansManager(recipe.plans)
    configuration = plans.get_configuration(recipe.configuration)
    preprocessor = configuration.preprocessor_class(verbose=False)
    preprocessor.run_case_save(
        str(aside / case.name),
        list(case.images),
        case.label,
        plans,
        configuration,
        recipe.dataset_json,
    )
    image = blosc2.open(str(aside / f"{case.name}.b2nd"), mode="r")[:]
    facts = image_facts(image, load_pickle(str(aside / f"{case.name}.pkl")))
    endings = [".pkl", ".b2nd"] if case.label is None else [".pkl", "_seg.b2nd", ".b2nd"]
    for ending in endings:
        (aside / f"{case.name}{ending}").replace(folder / f"{case.name}{ending}")
    shutil.rmtree(aside)
    return Entry.of(
        case.name, source, [folder / f"{case.name}{ending}" for ending in endings], facts
    )


def preprocess_cases(
    cases: Sequence[Case], recipe: Recipe, folder: Path, num_processes: int, title: str
) -> int:
    """Preprocess the cases that are not finished yet; what stood in ``folder`` for other cases is removed.

    Returns:
        How many cases had to be done.

    Raises:
        UserError: naming every case that failed; the others are finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder)
    sources = {case.name: recipe.source_of(case) for case in cases}
    finished = {
        name
        for name, entry in manifest.read().items()
        if sources.get(name) == entry.source and entry.is_intact(folder)
    }
    _remove_strangers(folder, finished)
    todo = [case for case in cases if case.name not in finished]
    problems: list[Problem] = []
    with tqdm(
        total=len(cases), initial=len(finished), desc=title, unit="case", disable=None
    ) as bar:
        for case, result in _run_all(todo, recipe, sources, folder, num_processes):
            if isinstance(result, Entry):
                manifest.add(result)
            else:
                problems.append(
                    Problem(
                        case.name,
                        f"preprocessing failed ({type(result).__name__}: {result})",
                        _advice(result),
                    )
                )
            bar.update()
    shutil.rmtree(folder.with_name(folder.name + ".tmp"), ignore_errors=True)
    if problems:
        raise UserError(
            f"{len(problems)} of {len(cases)} cases could not be preprocessed (the others are finished and stay):",
            problems,
        )
    return len(todo)


def _advice(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "a worker process was killed, most likely for want of memory: run again with a smaller -np"
    if isinstance(error, OSError):
        return "check the free space and permissions of nnUNet_preprocessed, then run again"
    return "mend or remove the case, then run again; only unfinished cases are done"


def _run_all(
    cases: Sequence[Case],
    recipe: Recipe,
    sources: Mapping[str, str],
    folder: Path,
    num_processes: int,
) -> Iterator[tuple[Case, Entry | BaseException]]:
    """Yield each case with its entry, or with what went wrong."""
    if num_processes <= 1:
        for case in cases:
            try:
                yield case, preprocess_case(case, recipe, sources[case.name], folder)
            except Exception as error:
                yield case, error
        return
    with ProcessPoolExecutor(
        num_processes, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        futures = {
            pool.submit(preprocess_case, case, recipe, sources[case.name], folder): case
            for case in cases
        }
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], future.result() if error is None else error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _remove_strangers(folder: Path, finished: set[str]) -> None:
    """Delete files of cases that are not finished, so that nothing half-written or outdated is ever read."""
    for path in folder.iterdir():
        name = path.name.removesuffix(".pkl").removesuffix(".b2nd")
        if path.is_file() and name not in finished and name.removesuffix("_seg") not in finished:
            path.unlink()


def adopt_stock_preprocessing(
    cases: Sequence[Case], recipe: Recipe, folder: Path, ground_truth: Path
) -> bool:
    """Take over what nnU-Net's own command has preprocessed: write the manifest it does not have.

    nnU-Net copies the labels to ``ground_truth`` when it has finished all configurations; a folder is taken over
    only if they are all there, and every case's files, and nothing else.
    """
    if manifest_file(folder).exists() or not folder.is_dir() or not ground_truth.is_dir():
        return False
    ending = recipe.dataset_json["file_ending"]
    expected = {f"{case.name}{end}" for case in cases for end in (".pkl", "_seg.b2nd", ".b2nd")}
    if {path.name for path in folder.iterdir()} != expected or any(
        not (ground_truth / f"{case.name}{ending}").is_file() for case in cases
    ):
        return False
    manifest = Manifest(folder)
    for case in cases:
        image = blosc2.open(str(folder / f"{case.name}.b2nd"), mode="r")[:]
        facts = image_facts(image, load_pickle(str(folder / f"{case.name}.pkl")))
        paths = [folder / f"{case.name}{end}" for end in (".pkl", "_seg.b2nd", ".b2nd")]
        manifest.add(Entry.of(case.name, recipe.source_of(case), paths, facts))
    return True
