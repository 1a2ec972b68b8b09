"""Preprocess a large imagesUn in shards, each a job of a launcher on any machine.

The launching process verifies all images and plans first; then it writes the list of cases, with
the hashes of their voxels, for the processes of the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

from semi_nnunet.preprocessing.cases import (
    Case,
    PreprocessingSpec,
    preprocess_cases,
    remove_unknown_cases,
)
from semi_nnunet.preprocessing.manifest import Manifest, get_shards_folder
from semi_nnunet.raw.layout import DATASET_JSON, get_unlabelled_folder
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.shards import Shard, holders, remove_unfinished, shards_holding

CASES = "cases.json"


@dataclass(frozen=True)
class UnlabelledPreprocessing:
    """The unlabelled cases of one configuration.

    Args:
        preprocessed: folder of the data set.
        configuration: its name.
    """

    preprocessed: Path
    plans: str
    configuration: str

    @cached_property
    def spec(self) -> PreprocessingSpec:
        """How to preprocess."""
        plans = read_plans(self.preprocessed, self.plans)
        description = read_json(self.preprocessed / DATASET_JSON)
        return PreprocessingSpec(plans, self.configuration, description)

    @cached_property
    def folder(self) -> Path:
        """The folder of the preprocessed cases."""
        return get_unlabelled_folder(self.preprocessed, self.spec.data_identifier)

    @property
    def shards(self) -> Path:
        """Lists, logs and locks."""
        return get_shards_folder(self.folder)

    def preprocess(self, cases: Sequence[Case], num_processes: int) -> None:
        """Preprocess all cases in this process and its workers.

        Raises:
            UserError: another process works on a shard, or cases failed.
        """
        require_idle_shards(self.folder)
        title = f"{self.configuration}, unlabelled"
        preprocess_cases(cases, self.spec, self.folder, num_processes, title)

    def begin(self, cases: Sequence[Case]) -> None:
        """Write the list of cases for the shards, and remove the files of other cases."""
        require_idle_shards(self.folder)
        for folder in (self.folder, self.shards):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(self.shards / CASES, [astuple(case) for case in cases])
        remove_unfinished(self.shards)
        remove_unknown_cases(self.folder, {case.name for case in cases})

    def cases(self) -> list[Case]:
        """Return the cases that :meth:`begin` listed.

        Raises:
            UserError: there is no list.
        """
        rows = read_json(self.shards / CASES)
        return [
            Case(name, tuple(images), label, digest, *map(tuple, others))
            for name, images, label, digest, *others in rows
        ]

    def find_unfinished(self, cases: Sequence[Case]) -> list[str]:
        """Return the cases that are missing or were made from another image or specification."""
        entries = Manifest(self.folder).present()
        return [
            case.name
            for case in cases
            if case.name not in entries or not self.spec.is_made_from(entries[case.name], case)
        ]


def require_idle_shards(folder: Path) -> None:
    """Raise a UserError if any process works on a shard of a preprocessed folder."""
    if working := holders(get_shards_folder(folder)):
        shard, holder = next(iter(working.items()))
        raise UserError(
            f"{len(working)} shards of {folder} are being worked on ({shard}: {holder})",
            fix="wait until they have ended, or end them, then run the same command again",
        )


@dataclass(frozen=True)
class UnlabelledShard(Shard):
    """The cases of one process: a job of a launcher.

    Args:
        pool: all cases of the configuration.
        number: of the shard, from 0.
        of: the number of all shards.
        processes: workers; None means one for each core of the job.
    """

    pool: UnlabelledPreprocessing
    number: int
    of: int
    processes: int | None = None

    def __str__(self) -> str:
        return f"{self.pool.configuration} {super().__str__()}"

    @property
    def folder(self) -> Path:
        return self.pool.shards

    def cases(self) -> list[Case]:
        """Return its cases, finished or not."""
        return [case for case in self.pool.cases() if self.holds(case.name)]

    @property
    def is_done(self) -> bool:
        return not self.pool.find_unfinished(self.cases())

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """Yield the command that does the unfinished cases."""
        pool = self.pool
        data = ("-d", pool.preprocessed.name, "-p", pool.plans, "-c", pool.configuration)
        shard = ("--shards", str(self.of), "--only", str(self.number), "--worker")
        workers = ("-np", str(self.processes)) if self.processes else ()
        yield ("semi_nnunet", "preprocess", *data, *shard, *workers)

    def run(self, processes: int) -> None:
        """Preprocess the unfinished cases."""
        pool = self.pool
        preprocess_cases(self.cases(), pool.spec, pool.folder, processes, str(self), self)


def find_unfinished_preprocessing_shards(
    pool: UnlabelledPreprocessing, cases: Sequence[Case], count: int
) -> list[int]:
    """Return the numbers of those of ``count`` shards that have unfinished cases."""
    return shards_holding(pool.find_unfinished(cases), count)
