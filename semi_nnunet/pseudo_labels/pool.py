"""A pool of images of any size, labelled in shards, each by a process of its own, on any launcher.

A case is done when its files are complete (written aside, then renamed) and its line, with their
checksums, is in the list of its shard. A kill costs the current case. Running again labels the
missing cases, also with more shards, or after images were added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.deploy.trained import TrainedModel, find_models
from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.pseudo_labels.predictor import LabelCompletion, Labeller, Prediction
from semi_nnunet.pseudo_labels.uncertainty import compute_uncertainties
from semi_nnunet.raw.description import find_cases, read_description
from semi_nnunet.raw.readers import choose_reader, with_spacing_files
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError, shorten_reason
from semi_nnunet.util.failures import is_of_machine, is_of_memory
from semi_nnunet.util.files import (
    could_not_write,
    optional_json,
    put_in_place,
    write_csv,
    write_json,
)
from semi_nnunet.util.names import list_first
from semi_nnunet.util.provenance import FileRecord
from semi_nnunet.util.shards import Shard
from semi_nnunet.util.validation import line_as
from semi_nnunet.util.verb_commands import build_command, extend_command
from semi_nnunet.verify.file_bytes import find_incomplete_images, require_complete_image
from semi_nnunet.verify.integrity import find_image_problems

REQUEST = "request.json"
TABLE = "uncertainty.csv"
OPTIONS = {  # key of a request's record -> how messages name it
    "images": "images", "models": "models", "views": "views", "confidence": "--confidence",
    "npz": "--npz", "complete": "--partial-labels",
}  # fmt: skip


@dataclass(frozen=True)
class LabellingRequest:
    """Images, models and views of a labelling, the same for all shards and reruns.

    Args:
        images: folder, CASE_0000.ending.
        out: folder for labels/, parts/ and request.json.
        models: folders of trained models, or folds of them.
        views: see :mod:`semi_nnunet.inference.views`.
        confidence: voxels below it get nnU-Net's ignore label; 0: none.
        npz: keep the probabilities (float16).
        complete: folder of labels of some of the images, which annotate some of the classes.
    """

    images: Path
    out: Path
    models: tuple[str, ...]
    views: tuple[str, ...] = ()
    confidence: float = 0.0
    npz: bool = False
    complete: Path | None = None

    @property
    def labels(self) -> Path:
        """Folder of the segmentations."""
        return self.out / "labels"

    def label_path(self, case: str) -> Path:
        """Return the path of a case's segmentation."""
        return self.labels / f"{case}{self.file_ending}"

    title = ""  # a pool's shards are called "shard 1 of 2"

    @property
    def shards(self) -> Path:
        """Folder of the lists of finished cases; its name dates from version 0.1."""
        return self.out / "parts"

    @cached_property
    def trained(self) -> list[TrainedModel]:
        """The models; raises UserError if a model is missing or they do not fit together."""
        return find_models(self.models)

    @property
    def file_ending(self) -> str:
        """Ending of the files of images and labels."""
        return str(self.trained[0].dataset_json["file_ending"])

    @cached_property
    def completion(self) -> LabelCompletion | None:
        """Annotations to complete; raises UserError if no dataset.json describes them."""
        if self.complete is None:
            return None
        return LabelCompletion.from_folder(self.complete, self.trained[0].dataset_json)

    @cached_property
    def cases(self) -> dict[str, list[str]]:
        """Case -> its channel files.

        Raises:
            UserError: there is no image.
        """
        images = find_cases(self.images, self.file_ending)
        if not images:
            defect = f"holds no image CASE_0000{self.file_ending}, which {self.trained[0]} needs"
            if not self.images.is_dir():
                defect = "is no folder of images"
            raise UserError(f"{self.images} {defect}", fix="correct -i")
        return {case: list(map(str, files)) for case, files in images.items()}

    def files(self, case: str) -> list[Path]:
        """Return the files from which the label of a case is made."""
        annotation = None if self.completion is None else self.completion.find_label(case)
        labels = with_spacing_files([annotation] if annotation else (), is_label=True)
        return [*with_spacing_files(self.cases[case], is_label=False), *labels]

    def describe_annotation(self, case: str) -> list[str]:
        """Return a checksum of what dataset.json says about a label to complete, [] for others."""
        if self.completion is None or self.completion.find_label(case) is None:
            return []
        return [self.completion.digest(case)]

    def record_files(self, case: str) -> str:
        """Return the records of the files of a case, as text for a list of finished cases."""
        return format_records(self.files(case), self.describe_annotation(case))

    def is_made_from(self, source: str, case: str) -> bool:
        """Return whether ``source``, from :meth:`record_files`, is of a case's present files."""
        files = self.files(case)
        if not source.startswith("["):  # of an earlier version: bytes and time of each file
            stats = [os.stat(path) for path in files]
            return source == " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
        content = json.loads(source)
        records = [FileRecord(*values) for values in content if isinstance(values, list)]
        if content[len(records) :] != self.describe_annotation(case):
            return False
        return len(records) == len(files) and all(
            record.refreshed(path) for record, path in zip(records, files, strict=True)
        )

    def record(self) -> dict[str, Any]:
        """Return what labels depend on, apart from the images themselves."""
        return {
            "images": str(self.images),
            "models": [model.record() for model in self.trained],
            "views": sorted(self.views),
            "confidence": self.confidence,
            "npz": self.npz,
            **({} if self.complete is None else {"complete": str(self.complete)}),
        }

    def begin(self) -> None:
        """Write the record before the shards start.

        Raises:
            UserError: the folder was begun with other images, models or views.
        """
        path, record = self.out / REQUEST, self.record()
        begun = optional_json(path)
        has_moved = begun | {"images": ""} == record | {"images": ""} and all(
            case in self.cases for case, _ in self.list_entries()
        )
        if path.is_file() and begun != record and not has_moved:
            changed = [OPTIONS[key] for key in OPTIONS if begun.get(key) != record.get(key)]
            raise UserError(
                f"{self.out} was begun with other {' and '.join(changed) or 'options'} ({path})",
                fix="remove it, or choose another folder or number by -o where the command has it",
            )
        for folder in (self.labels, self.shards):
            folder.mkdir(parents=True, exist_ok=True)
        if begun != record:  # each image is compared by its content
            write_json(path, record)

    def list_entries(self) -> Iterator[tuple[str, ManifestEntry]]:
        """Yield the cases that shards have finished, whatever happened to them since."""
        for path in self.shards.glob("*.jsonl"):
            yield from Manifest(self.labels, path).read().items()

    def require_no_edited_label(self) -> None:
        """Refuse to replace a label that somebody corrected here; damaged ones do not count.

        Raises:
            UserError: labels differ from what was written, although their images do not.
        """
        newest = dict[str, ManifestEntry]()  # a case may have been labelled in several shards
        for case, entry in self.list_entries():
            if case not in newest or entry.when >= newest[case].when:
                newest[case] = entry
        edited = [
            self.label_path(case).name
            for case, entry in newest.items()
            if case in self.cases
            and not entry.is_unchanged(self.labels)
            and not any(find_incomplete_images([self.label_path(case)]))
            and self.is_made_from(entry.source, case)
        ]
        if edited:
            raise UserError(
                f"labels in {self.labels} were edited since they were written: "
                f"{list_first(edited)}",
                fix="move your corrections to another folder, from which semi_nnunet accept takes "
                "them, and delete the other edited labels here",
            )

    def state(self, cases: Iterable[str]) -> PoolState:
        """Read which of ``cases`` are done or skipped; images that have changed are neither."""
        requested, state = {*cases}, PoolState({}, {})
        for case, entry in self.list_entries():
            if case not in requested:
                continue
            if entry.is_unchanged(self.labels) and self.is_made_from(entry.source, case):
                state.done[case] = entry
        for path in self.shards.glob("*.bad"):
            for line in path.read_text(errors="replace").splitlines():
                bad = line_as(SetAside, line)  # None if torn by a crash: the case is tried again
                if not bad or bad.case not in requested or bad.case in state.done:
                    continue
                if self.is_made_from(bad.source, bad.case):
                    state.bad[bad.case] = bad.problem
        return state

    def find_unfinished(self, cases: Collection[str] | None = None) -> list[str]:
        """Return those of ``cases`` (None: all) that are neither done nor skipped."""
        cases = self.cases if cases is None else cases
        state = self.state(cases)
        return [case for case in cases if case not in state.done and case not in state.bad]

    def shard_command(self, number: int, count: int, device: str) -> Command:
        """Return the command that labels the unfinished cases of a shard."""
        return extend_command(self.command(count), only=number, worker=True, device=device)

    def command(self, count: int) -> Command:
        """Return the command that labels the images in ``count`` shards."""
        return build_command(
            "pseudo-label", images=self.images, out=self.out, models=self.models,
            views=self.views, confidence=self.confidence, npz=self.npz,
            partial_labels=self.complete, shards=count,
        )  # fmt: skip

    def done(self) -> dict[str, ManifestEntry]:
        """Return the finished cases."""
        return self.state(self.cases).done

    def bad(self) -> dict[str, str]:
        """Return the cases that were skipped, with their problem."""
        return self.state(self.cases).bad


@dataclass(frozen=True)
class SetAside:
    """A case that cannot be labelled, with the version of its files and the reason."""

    case: str
    source: str
    problem: str


@dataclass(frozen=True)
class PoolState:
    """Finished cases with their entries, and skipped cases with the reason."""

    done: dict[str, ManifestEntry]
    bad: dict[str, str]


def format_records(files: Sequence[Path], checksums: Sequence[str] = ()) -> str:
    """Return the records of files as text, with checksums of what else a label depends on."""
    return json.dumps([*(astuple(FileRecord.of_any(path)) for path in files), *checksums])


# ---- shards ----


def skip_case(shard: Shard[LabellingRequest], case: str, problem: str) -> None:
    """Record a case that cannot be labelled with the present version of its files."""
    versions = shard.work.record_files(case)
    entry = asdict(SetAside(case, versions, " ".join(problem.split())))
    with (shard.folder / f"{shard.name}.bad").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def run_shard(
    shard: Shard[LabellingRequest], labeller: Labeller, cases: Sequence[str]
) -> Iterator[str]:
    """Label unfinished cases of a shard one after another; yield each when it is done.

    Args:
        shard: of the cases.
        labeller: predicts an image.
        cases: to label.

    Raises:
        UserError: the disk or device failed, or the memory was too small for some cases.
    """
    for leftover in shard.folder.glob(f"{shard.aside.name}.*"):  # of a killed process
        leftover.unlink()
    request, files = shard.work, shard.cases()
    description = read_description(request.trained[0].folder)
    reader = choose_reader(description, [file for case in cases for file in files[case]])
    manifest = Manifest(request.labels, shard.finished)
    too_large, changed = list[str](), list[str]()
    for case in cases:
        if problems := find_image_problems(request.images, description, reader, case, files[case]):
            skip_case(shard, case, "; ".join(map(str, problems)))
            yield case
            continue
        versions = request.record_files(case)
        try:
            prediction = labeller(files[case])
            if request.completion is not None:
                prediction = request.completion.complete(
                    case, prediction, labeller.reader_writer, labeller.label_manager
                )
        except Exception as error:
            if is_of_memory(error):  # others may take less
                too_large.append(f"{case} ({shorten_reason(error)})")
                continue
            if is_of_machine(error):
                raise UserError(
                    f"{case} could not be labelled: {shorten_reason(error)}",
                    fix="run the same command again, on another device or disk",
                ) from error
            # one strange image must not end the labelling of the others
            skip_case(shard, case, f"cannot be labelled: {shorten_reason(error)}")
        else:
            if not request.is_made_from(versions, case):
                changed.append(case)
                continue
            manifest.add(write_labelled_case(shard, case, versions, prediction, labeller))
        yield case
    if changed:
        raise UserError(
            f"{list_first(changed)} changed while they were labelled; all others are labelled",
            fix="run the same command again when their copies have ended",
        )
    if too_large:
        raise UserError(
            f"the memory was too small for {', '.join(too_large)}; all others are labelled",
            fix="with less memory used by others, or on another device, run the same command again",
        )


def write_labelled_case(
    shard: Shard[LabellingRequest],
    case: str,
    versions: str,
    prediction: Prediction,
    labeller: Labeller,
) -> ManifestEntry:
    """Write a case's files aside and rename them; return the entry with its uncertainty.

    Raises:
        DiskError: the disk is full or not writable.
    """
    request, aside = shard.work, shard.aside
    manager = labeller.label_manager
    labels = ignore_unsure_voxels(prediction, manager, request.confidence)
    temporary = aside.with_name(f"{aside.name}{request.file_ending}")
    files = {request.label_path(case): temporary}
    try:
        labeller.reader_writer.write_seg(labels, str(temporary), prediction.properties)
        require_complete_image(temporary)
        sidecar = aside.with_name(f"{aside.name}.json")
        if sidecar.is_file():  # the spacing of a .tif
            files[request.labels / f"{case}.json"] = sidecar
        if request.npz:
            temporary = aside.with_name(f"{aside.name}.npz")
            half = prediction.probabilities.astype(np.float16)
            np.savez_compressed(temporary, probabilities=half)
            files[request.labels / f"{case}.npz"] = temporary
        for path, temporary in files.items():
            put_in_place(temporary, path)
    except (OSError, RuntimeError) as error:  # SimpleITK reports a full disk as RuntimeError
        for temporary in files.values():
            temporary.unlink(missing_ok=True)
        message, state = f"the labels of {case} to {request.labels}", "Earlier cases are complete"
        raise could_not_write(message, error, request.labels, state=state) from error
    ignored = float(np.mean(labels == choose_ignore_label(manager))) if request.confidence else 0.0
    facts = {"uncertainty": compute_uncertainties(prediction, manager), "ignored": ignored}
    return ManifestEntry.of(case, versions, list(files), facts)


def choose_ignore_label(label_manager: Any) -> int:
    """Return nnU-Net's ignore label, or the next one after the largest label."""
    declared = label_manager.ignore_label
    return int(max(label_manager.all_labels) + 1 if declared is None else declared)


def ignore_unsure_voxels(
    prediction: Prediction, label_manager: Any, confidence: float
) -> np.ndarray:
    """Return the labels, with the ignore label where they are less probable than ``confidence``.

    Of regions, the least certain one counts: the one whose probability is closest to 1/2.
    """
    if not confidence:
        return prediction.labels
    p = prediction.probabilities
    surest = np.maximum(p, 1 - p).min(0) if label_manager.has_regions else p.max(0)
    return np.where(surest < confidence, choose_ignore_label(label_manager), prediction.labels)


# ---- scores ----


def read_uncertainties(entries: Mapping[str, ManifestEntry]) -> dict[str, dict[str, float]]:
    """Return case -> its uncertainties, by name; without cases whose voxels are all ignored."""
    return {
        case: entry.facts["uncertainty"]
        for case, entry in entries.items()
        if entry.facts["ignored"] < 1
    }


def write_uncertainty_table(
    request: LabellingRequest, entries: Mapping[str, ManifestEntry]
) -> Path:
    """Write uncertainty.csv, the most certain case first, and return its path."""
    scores, path = read_uncertainties(entries), request.out / TABLE
    columns = list(next(iter(scores.values()), {}))
    in_order = sorted(scores, key=lambda case: ([*scores[case].values()][::-1], case))
    rows = [[case, *(f"{scores[case][column]:.6f}" for column in columns)] for case in in_order]
    write_csv(path, [["case", *columns], *rows])
    return path
