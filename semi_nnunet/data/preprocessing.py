"""nnU-Net's preprocessing, case by case: resumable, and for images without labels, too."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import blosc2
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from semi_nnunet.data.fingerprint import class_facts, image_facts, label_facts
from semi_nnunet.data.layout import manifest_file
from semi_nnunet.data.manifest import Entry, Manifest
from semi_nnunet.util.errors import DiskError, Problem, UserError
from semi_nnunet.util.files import could_not_write, sha256_of_file, sha256_of_json, writing
from semi_nnunet.util.parallel import process_pool
from semi_nnunet.util.progress import with_progress
from semi_nnunet.util.shards import Shard

LABELLED_ENDINGS = (".pkl", "_seg.b2nd", ".b2nd")  # the image last
UNLABELLED_ENDINGS = (".pkl", ".b2nd")


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

    @property
    def data_identifier(self) -> str:
        """The name of the folder of preprocessed cases."""
        manager = PlansManager(self.plans).get_configuration(self.configuration)
        return str(manager.data_identifier)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the result depends on; network, batch and our settings do not matter."""
        configuration = PlansManager(self.plans).get_configuration(self.configuration).configuration
        prefixes = ("spacing", "normalization", "use_mask", "resampling", "preprocessor")
        relevant = {key: configuration[key] for key in configuration if key.startswith(prefixes)}
        relevant["transpose_forward"] = self.plans["transpose_forward"]
        relevant["intensities"] = self.plans["foreground_intensity_properties_per_channel"]
        relevant["reader"] = self.plans["image_reader_writer"]
        relevant["labels"] = self.dataset_json["labels"]
        return sha256_of_json(relevant)[:16]

    def source_of(self, case: Case) -> str:
        """What a finished case was made from: images, label and recipe."""
        label = "" if case.label is None else sha256_of_file(case.label)[:16]
        return f"{case.content_hash[:32]}-{label}-{self.fingerprint}"


WHOLE = "The cases that were finished before are whole, and stay"
Work = Callable[[Case], Entry]


def preprocess_case(case: Case, recipe: Recipe, folder: Path, aside: Path) -> Entry:
    """Preprocess one case into ``folder``: written aside, then renamed, the image last.

    An unlabelled case gets an image and properties, no segmentation.

    Raises:
        DiskError: its files could not be written; other errors are of the case.
    """
    source, aside = recipe.source_of(case), aside / case.name
    plans = PlansManager(recipe.plans)
    configuration = plans.get_configuration(recipe.configuration)
    preprocessor = configuration.preprocessor_class(verbose=False)
    is_ready, run_case = False, preprocessor.run_case

    def run_and_note(*arguments: Any, **options: Any) -> Any:
        nonlocal is_ready
        result = run_case(*arguments, **options)
        is_ready = True
        return result

    preprocessor.run_case = run_and_note
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside, folder, left=WHOLE):
        aside.mkdir(parents=True)
    names = [
        f"{case.name}{ending}"
        for ending in (UNLABELLED_ENDINGS if case.label is None else LABELLED_ENDINGS)
    ]
    try:
        preprocessor.run_case_save(
            str(aside / case.name),
            list(case.images),
            case.label,
            plans,
            configuration,
            recipe.dataset_json,
        )
        facts = _facts(aside, case.name, with_label=case.label is not None)
        for name in names:
            (aside / name).replace(folder / name)
        shutil.rmtree(aside)
    except (OSError, RuntimeError) as error:  # blosc2 raises RuntimeError, whatever the disk says
        if not is_ready:
            raise
        what = f"the preprocessed {case.name} to {folder}"
        raise could_not_write(what, error, folder, left=WHOLE) from error
    return Entry.of(case.name, source, [folder / name for name in names], facts)


def preprocess_cases(
    cases: Sequence[Case],
    recipe: Recipe,
    folder: Path,
    num_processes: int,
    title: str,
    shard: Shard | None = None,
) -> int:
    """Preprocess the cases that are not finished yet; files of other cases are removed.

    Args:
        cases: all that ``folder`` is to hold, or all of the shard.
        recipe: how.
        folder: for the preprocessed files.
        num_processes: up to 1 means in this process.
        title: of the progress bar.
        shard: what of the folder is ours; None: all of it.

    Returns:
        How many cases had to be done.

    Raises:
        UserError: naming every case that failed; the others are finished.
        DiskError: at once, where the disk is full or not writable.
    """
    with writing(folder, folder, left=WHOLE):
        folder.mkdir(parents=True, exist_ok=True)
    sources = {case.name: recipe.source_of(case) for case in cases}
    finished = {
        name
        for name, entry in Manifest(folder).read().items()
        if sources.get(name) == entry.source and entry.is_intact(folder)
    }
    remove_strangers(folder, finished, shard)
    todo = [case for case in cases if case.name not in finished]
    aside = folder.with_name(f"{folder.name}.tmp") if shard is None else shard.aside
    manifest = Manifest(folder, None if shard is None else shard.finished)
    problems: list[Problem] = []
    work = partial(preprocess_case, recipe=recipe, folder=folder, aside=aside)
    results = _run_all(todo, work, num_processes)
    options = {"total": len(cases), "initial": len(finished), "unit": "case", "disable": None}
    with tqdm(desc=title, **options) as bar:
        for case, result in results if shard is None else with_progress(results, len(todo)):
            if isinstance(result, Entry):
                manifest.add(result)
            elif isinstance(result, DiskError):  # no case is to blame, and all others fail, too
                results.close()
                shutil.rmtree(aside, ignore_errors=True)
                raise result
            else:
                what = f"preprocessing failed ({type(result).__name__}: {result})"
                problems.append(Problem(case.name, what, _advice(result)))
            bar.update()
    shutil.rmtree(aside, ignore_errors=True)
    if problems:
        failed = f"{len(problems)} of {len(cases)} cases could not be preprocessed"
        raise UserError(f"{failed} (the others are finished and stay):", problems)
    return len(todo)


def _advice(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "its process was killed, probably because memory ran out: run again with -np 1"
    return "mend or remove the case, then run again; only unfinished cases are done"


def _run_all(
    cases: Sequence[Case], work: Work, num_processes: int
) -> Generator[tuple[Case, Entry | BaseException], None, None]:
    """Yield each case with its entry, or with what went wrong."""
    if num_processes <= 1 or not cases:
        for case in cases:
            try:
                yield case, work(case)
            except Exception as error:
                yield case, error
        return
    again: list[Case] = []  # a killed process takes the cases of all others along
    for case, result in _run_in_pool(cases, work, num_processes):
        if isinstance(result, BrokenProcessPool):
            again.append(case)
        else:
            yield case, result
    for number, case in enumerate(again, start=1):  # alone, with all memory to itself
        tqdm.write(f"a process was killed: doing {case.name} alone ({number} of {len(again)})")
        yield from _run_in_pool([case], work, 1)


def _run_in_pool(
    cases: Sequence[Case], work: Work, num_processes: int
) -> Iterator[tuple[Case, Entry | BaseException]]:
    with process_pool(min(num_processes, len(cases))) as pool:
        futures = {pool.submit(work, case): case for case in cases}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], future.result() if error is None else error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def remove_strangers(folder: Path, kept: Collection[str], shard: Shard | None = None) -> None:
    """Delete the files of all other cases, those of a shard where one is given.

    They are half-written or outdated, or their case is gone.
    """
    for path in folder.iterdir():
        name = path.name.removesuffix(".pkl").removesuffix(".b2nd")
        if shard is not None and not shard.holds(name):
            continue
        if path.is_file() and name not in kept and name.removesuffix("_seg") not in kept:
            path.unlink()


def adopt_stock_preprocessing(
    cases: Sequence[Case], recipe: Recipe, folder: Path, ground_truth: Path
) -> bool:
    """Take over what nnU-Net's own command has preprocessed: write the manifest it does not have.

    nnU-Net copies the labels to ``ground_truth`` when it has finished all configurations; a folder
    is taken over only if they are all there, and every case's files, readable, and nothing else.
    """
    if manifest_file(folder).exists() or not folder.is_dir() or not ground_truth.is_dir():
        return False
    ending = recipe.dataset_json["file_ending"]
    expected = {f"{case.name}{end}" for case in cases for end in LABELLED_ENDINGS}
    if {path.name for path in folder.iterdir()} != expected or any(
        not (ground_truth / f"{case.name}{ending}").is_file() for case in cases
    ):
        return False
    try:
        facts = {case.name: _facts(folder, case.name, with_label=True) for case in cases}
        for case in cases:
            blosc2.open(str(folder / f"{case.name}_seg.b2nd"), mode="r")[:]
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return False  # a file is damaged: all are made anew
    manifest = Manifest(folder)
    for case in cases:
        paths = [folder / f"{case.name}{end}" for end in LABELLED_ENDINGS]
        manifest.add(Entry.of(case.name, recipe.source_of(case), paths, facts[case.name]))
    return True


def _facts(folder: Path, case: str, with_label: bool) -> dict[str, Any]:
    """What the manifest says of a preprocessed case, read from its files."""
    image = blosc2.open(str(folder / f"{case}.b2nd"), mode="r")[:]
    properties = load_pickle(str(folder / f"{case}.pkl"))
    facts = image_facts(image, properties)
    if with_label:
        facts |= class_facts(image, properties["class_locations"])
        facts |= label_facts(blosc2.open(str(folder / f"{case}_seg.b2nd"), mode="r")[:])
    return facts
