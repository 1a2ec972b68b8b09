"""Preprocess a large imagesUn in shards: each a job of a launcher, on any machine.

The launching process has verified all images and planned; it writes the list of cases, with the
hashes of their voxels, for the processes of the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

from semi_nnunet.data.layout import read_plans, shards_folder, unlabelled_folder
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.data.preprocessing import Case, Recipe, preprocess_cases, remove_strangers
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
        plans: their name.
        configuration: whose data they become.
    """

    preprocessed: Path
    plans: str
    configuration: str

    @cached_property
    def recipe(self) -> Recipe:
        plans = read_plans(self.preprocessed, self.plans)
        return Recipe(plans, self.configuration, read_json(self.preprocessed / "dataset.json"))

    @cached_property
    def folder(self) -> Path:
        """The folder of the preprocessed cases."""
        return unlabelled_folder(self.preprocessed, self.recipe.data_identifier)

    @property
    def shards(self) -> Path:
        """Lists, logs and locks."""
        return shards_folder(self.folder)

    def begin(self, cases: Sequence[Case]) -> None:
        """Write down the cases for the shards; what was left of others is removed."""
        require_idle(self.folder)
        for folder in (self.folder, self.shards):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(self.shards / CASES, [astuple(case) for case in cases])
        remove_unfinished(self.shards)
        remove_strangers(self.folder, {case.name for case in cases})

    def cases(self) -> list[Case]:
        """The cases that were written down.

        Raises:
            UserError: none were.
        """
        rows = read_json(self.shards / CASES)
        return [Case(name, tuple(images), label, digest) for name, images, label, digest in rows]

    def left(self, cases: Sequence[Case]) -> list[str]:
        """The cases that are not there, or were made from another image or in another way."""
        there = Manifest(self.folder).present()
        return [
            case.name
            for case in cases
            if case.name not in there or there[case.name].source != self.recipe.source_of(case)
        ]


def require_idle(folder: Path) -> None:
    """Check that nobody works on a shard of a preprocessed folder.

    Raises:
        UserError: somebody does.
    """
    if at_work := holders(shards_folder(folder)):
        shard, holder = next(iter(at_work.items()))
        raise UserError(
            f"{len(at_work)} shards of {folder} are being worked on ({shard}: {holder})",
            fix="wait until they have ended, or end them, then run the same command again",
        )


@dataclass(frozen=True)
class UnlabelledShard(Shard):
    """The cases of one process: a job of a launcher.

    Args:
        pool: all cases of the configuration.
        number: of the shard, from 0.
        of: how many shards there are.
        processes: that preprocess; None: one for each core of the job.
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
        """Its cases, done or not."""
        return [case for case in self.pool.cases() if self.holds(case.name)]

    @property
    def is_done(self) -> bool:
        return not self.pool.left(self.cases())

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """The command that does what is left."""
        pool = self.pool
        where = ("-d", pool.preprocessed.name, "-p", pool.plans, "-c", pool.configuration)
        which = ("--shards", str(self.of), "--only", str(self.number), "--worker")
        at_a_time = ("-np", str(self.processes)) if self.processes else ()
        yield ("semi_nnunet", "preprocess", *where, *which, *at_a_time)

    def run(self, processes: int) -> None:
        """Preprocess what is left."""
        preprocess_cases(
            self.cases(), self.pool.recipe, self.pool.folder, processes, str(self), self
        )


def shards_left(pool: UnlabelledPreprocessing, cases: Sequence[Case], count: int) -> list[int]:
    """The numbers of those of ``count`` shards that have something left to do."""
    return shards_holding(pool.left(cases), count)
