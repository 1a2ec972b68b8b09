"""Label a pool of images of any size: in shards, each by a process of its own, on any launcher.

A case is done when its files are complete (written aside, then renamed) and its line, with their
checksums, is in the list of the shard that did it. What is killed costs its current case; running
again does what is missing, also with more shards, or after images were added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.data.file_bytes import require_whole, short_reason
from semi_nnunet.data.integrity import image_problems, reader_class
from semi_nnunet.data.manifest import Entry, Manifest
from semi_nnunet.data.raw_description import cases_in, read_description
from semi_nnunet.deploy.trained import TrainedModel, find_models
from semi_nnunet.pseudo_labels.completion import Completion
from semi_nnunet.pseudo_labels.predictor import Labeller, Prediction
from semi_nnunet.pseudo_labels.uncertainty import uncertainties
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.failures import is_of_machine, is_of_memory
from semi_nnunet.util.files import could_not_write, put_in_place, read_json, write_csv, write_json
from semi_nnunet.util.shards import Shard, shards_holding
from semi_nnunet.util.validation import line_as

REQUEST = "request.json"
TABLE = "uncertainty.csv"


@dataclass(frozen=True)
class Request:
    """The images, models and views asked for; they are the same for all shards and reruns.

    Args:
        images: folder, CASE_0000.ending.
        out: folder for labels/, parts/ and request.json.
        models: folders of trained models, or folds of them.
        views: see :mod:`semi_nnunet.pseudo_labels.test_time_augmentation`.
        confidence: below it, a voxel gets nnU-Net's ignore label; 0: none does.
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
        """The folder of the segmentations."""
        return self.out / "labels"

    def label_of(self, case: str) -> Path:
        """The segmentation of a case."""
        return self.labels / f"{case}{self.trained[0].dataset_json['file_ending']}"

    @property
    def finished_lists(self) -> Path:
        """The folder of what each shard has finished, by the name that it has had since 0.1."""
        return self.out / "parts"

    @cached_property
    def trained(self) -> list[TrainedModel]:
        """The models; raises UserError where there is none, or they do not fit together."""
        return find_models(self.models)

    @cached_property
    def completion(self) -> Completion | None:
        """What completes labels of people; raises UserError where nothing is told of them."""
        if self.complete is None:
            return None
        return Completion.of(self.complete, self.trained[0].dataset_json)

    def source(self, case: str) -> str:
        """The version of the files that the label of a case is made of."""
        known = None if self.completion is None else self.completion.file_of(case)
        return source_of(self.cases[case] if known is None else [*self.cases[case], str(known)])

    @cached_property
    def cases(self) -> dict[str, list[str]]:
        """Case -> its channel files.

        Raises:
            UserError: there is none.
        """
        ending = self.trained[0].dataset_json["file_ending"]
        found = {
            case: list(map(str, files)) for case, files in cases_in(self.images, ending).items()
        }
        if not found:
            raise UserError(
                f"{self.images} holds no image CASE_0000{ending}, as {self.trained[0]} wants them. "
                f"",
                fix="correct -i",
            )
        return found

    def record(self) -> dict[str, Any]:
        """The record of what the labels depend on, beside the images themselves."""
        return {
            "images": str(self.images),
            "models": [model.record() for model in self.trained],
            "views": sorted(self.views),
            "confidence": self.confidence,
            "npz": self.npz,
            **({} if self.complete is None else {"complete": str(self.complete)}),
        }

    def begin(self) -> None:
        """Write down what is asked for, before the shards start.

        Raises:
            UserError: the folder was begun with other images, models or views.
        """
        path, record = self.out / REQUEST, self.record()
        if path.is_file() and read_json(path) != record:
            raise UserError(
                f"{self.out} was begun with other images, models, views, --confidence, --npz or "
                f"--complete ({path})",
                fix="choose another folder or number by -o, or remove it",
            )
        for folder in (self.labels, self.finished_lists):
            folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_json(path, record)

    def state(self, cases: Iterable[str]) -> PoolState:
        """Read which of these cases are done, and which were set aside.

        An image that has changed since is neither.
        """
        sources = {case: self.source(case) for case in cases}
        found = PoolState({}, {})
        for path in self.finished_lists.glob("*.jsonl"):
            for case, entry in Manifest(self.labels, path).read().items():
                if entry.source == sources.get(case) and entry.is_present(self.labels):
                    found.done[case] = entry
        for path in self.finished_lists.glob("*.bad"):
            for line in path.read_text(errors="replace").splitlines():
                one = line_as(SetAside, line)  # torn by a crash: it is tried again
                if one and one.source == sources.get(one.case) and one.case not in found.done:
                    found.bad[one.case] = one.problem
        return found

    def left(self, cases: Collection[str] | None = None) -> list[str]:
        """The cases, or those of ``cases``, that are neither done nor set aside."""
        wanted = self.cases if cases is None else cases
        state = self.state(wanted)
        return [case for case in wanted if case not in state.done and case not in state.bad]

    def done(self) -> dict[str, Entry]:
        """The finished cases."""
        return self.state(self.cases).done

    def bad(self) -> dict[str, str]:
        """The cases that were set aside, with their problem."""
        return self.state(self.cases).bad


@dataclass(frozen=True)
class SetAside:
    """A case that cannot be labelled, as its files were, and why."""

    case: str
    source: str
    problem: str


@dataclass(frozen=True)
class PoolState:
    """Case -> its entry, and case -> why it was set aside."""

    done: dict[str, Entry]
    bad: dict[str, str]


def source_of(files: Sequence[str]) -> str:
    """The version of a case's files: bytes and time of each."""
    stats = [os.stat(file) for file in files]
    return " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)


@dataclass(frozen=True)
class PoolShard(Shard):
    """The cases of one process: a job of a launcher.

    Args:
        request: what is asked for.
        number: of the shard, from 0.
        of: how many shards there are.
    """

    request: Request
    number: int
    of: int

    @property
    def folder(self) -> Path:
        return self.request.finished_lists

    def cases(self) -> dict[str, list[str]]:
        """Case -> files."""
        return {case: files for case, files in self.request.cases.items() if self.holds(case)}

    def left(self) -> list[str]:
        """The shard's cases that are neither done nor set aside."""
        return self.request.left(self.cases())

    @property
    def is_done(self) -> bool:
        return not self.left()

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """The command that does what is left."""
        words = (*self.arguments(), "--only", str(self.number), "--worker", "--device", device)
        yield ("semi_nnunet", "pseudo-label", *words)

    def arguments(self) -> list[str]:
        """The arguments of the command, without the number of the shard."""
        request = self.request
        words = ["-i", str(request.images), "-o", str(request.out), "-m", *request.models]
        words += ["--views", *request.views] if request.views else []
        words += ["--confidence", str(request.confidence)] if request.confidence else []
        words += ["--npz"] if request.npz else []
        words += [] if request.complete is None else ["--complete", str(request.complete)]
        return [*words, "--shards", str(self.of)]

    def set_aside(self, case: str, problem: str) -> None:
        """Note a case that cannot be labelled, as its files are now."""
        source = self.request.source(case)
        noted = asdict(SetAside(case, source, " ".join(problem.split())))
        with (self.folder / f"{self.name}.bad").open("a", encoding="utf-8") as file:
            file.write(json.dumps(noted) + "\n")
            file.flush()
            os.fsync(file.fileno())


def shards_left(request: Request, count: int) -> list[PoolShard]:
    """The ones of ``count`` shards that have something left to do."""
    return [PoolShard(request, number, count) for number in shards_holding(request.left(), count)]


def run_shard(shard: PoolShard, label: Labeller, left: Sequence[str]) -> Iterator[str]:
    """Label what is left of a shard, one case after another; yields each when it is done.

    Args:
        shard: the shard.
        label: what labels.
        left: its cases.
    """
    for leftover in shard.folder.glob(f"{shard.aside.name}.*"):  # of a killed process
        leftover.unlink()
    request, cases = shard.request, shard.cases()
    description = read_description(request.trained[0].folder)
    reader = reader_class(description, [file for case in left for file in cases[case]])
    manifest = Manifest(request.labels, shard.finished)
    too_large: list[str] = []
    for case in left:
        if problems := image_problems(request.images, description, reader, case, cases[case]):
            shard.set_aside(case, "; ".join(map(str, problems)))
            yield case
            continue
        source = request.source(case)
        try:
            prediction = label(cases[case])
            if request.completion is not None:
                reader_writer = label.models[0].reader_writer
                prediction = request.completion(
                    case, prediction, reader_writer, label.label_manager
                )
        except Exception as error:
            if is_of_memory(error):  # others may take less
                too_large.append(f"{case} ({short_reason(error)})")
                continue
            if is_of_machine(error):
                raise UserError(
                    f"{case} could not be labelled: {short_reason(error)}",
                    fix="run the same command again, on another device or disk",
                ) from error
            # one strange image must not end the labelling of the others
            shard.set_aside(case, f"cannot be labelled: {short_reason(error)}")
        else:
            manifest.add(write_case(shard, case, source, prediction, label))
        yield case
    if too_large:
        raise UserError(
            f"the memory was too small for {', '.join(too_large)}; all others are labelled",
            fix="with less memory used by others, or on another device, run the same command again",
        )


def ignore_value(label_manager: Any) -> int:
    """nnU-Net's ignore label; where the data set has none, the next after its largest."""
    declared = label_manager.ignore_label
    return int(max(label_manager.all_labels) + 1 if declared is None else declared)


def with_ignored(prediction: Prediction, label_manager: Any, confidence: float) -> np.ndarray:
    """The labels; voxels whose label has a probability below ``confidence`` are ignored.

    Of regions, the one that is least sure counts: the distance of its probability from 1/2.
    """
    if not confidence:
        return prediction.labels
    p = prediction.probabilities
    surest = np.maximum(p, 1 - p).min(0) if label_manager.has_regions else p.max(0)
    return np.where(surest < confidence, ignore_value(label_manager), prediction.labels)


def write_case(
    shard: PoolShard, case: str, source: str, prediction: Prediction, label: Labeller
) -> Entry:
    """Write a case's files aside and rename them; says what is there now, and its uncertainty.

    Raises:
        DiskError: the disk is full or not writable.
    """
    request, aside = shard.request, shard.aside
    manager = label.label_manager
    labels = with_ignored(prediction, manager, request.confidence)
    ending = request.trained[0].dataset_json["file_ending"]
    temporary = aside.with_name(f"{aside.name}{ending}")
    files = {request.label_of(case): temporary}
    writer = label.models[0].reader_writer
    try:
        writer.write_seg(labels, str(temporary), prediction.properties)
        require_whole(temporary)
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
        what, left = f"the labels of {case} to {request.labels}", "What was written before is whole"
        raise could_not_write(what, error, request.labels, left=left) from error
    ignored = float(np.mean(labels == ignore_value(manager))) if request.confidence else 0.0
    facts = {"uncertainty": uncertainties(prediction, manager), "ignored": ignored}
    return Entry.of(case, source, list(files), facts)


def scores_of(done: Mapping[str, Entry]) -> dict[str, dict[str, float]]:
    """Case -> its uncertainties, by name; not of images in which every voxel is ignored."""
    return {
        case: one.facts["uncertainty"] for case, one in done.items() if one.facts["ignored"] < 1
    }


def write_table(request: Request, done: Mapping[str, Entry]) -> Path:
    """Write uncertainty.csv, the most certain case first; returns where."""
    scores, path = scores_of(done), request.out / TABLE
    columns = list(next(iter(scores.values()), {}))
    in_order = sorted(scores, key=lambda case: ([*scores[case].values()][::-1], case))
    rows = [[case, *(f"{scores[case][column]:.6f}" for column in columns)] for case in in_order]
    write_csv(path, [["case", *columns], *rows])
    return path
