"""Preprocess a large imagesUn in shards. Each shard is a job, which may run on another machine.

The launching process first verifies all images and makes the plans. Then it writes the list of
cases, with the hashes of their voxels, for the shards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

from semi_nnunet.preprocessing.cases import (
    Case,
    PreprocessingSpec,
    preprocess_cases,
    remove_other_files,
)
from semi_nnunet.preprocessing.manifest import Manifest, get_shards_folder
from semi_nnunet.raw.layout import DATASET_JSON, get_unlabelled_folder
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.shards import Shard, holders, remove_unfinished
from semi_nnunet.util.verb_commands import build_command

CASES = "cases.json"


@dataclass(frozen=True)
class UnlabelledPreprocessing:
    """The work of preprocessing the unlabelled cases of one configuration.

    Args:
        preprocessed: folder of the data set.
        plans: identifier.
        configuration: its name.
        processes: workers of each shard; None means one for each core of the job.
    """

    preprocessed: Path
    plans: str
    configuration: str
    processes: int | None = None

    @property
    def title(self) -> str:
        return self.configuration

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
        remove_other_files(self.folder, {case.name for case in cases})

    @property
    def cases(self) -> dict[str, Case]:
        """Name -> case, of the cases that :meth:`begin` listed.

        Raises:
            UserError: there is no list.
        """
        rows = read_json(self.shards / CASES)
        return {
            name: Case(name, tuple(images), label, digest, *map(tuple, others))
            for name, images, label, digest, *others in rows
        }

    def find_unfinished(self, cases: Collection[str] | None = None) -> list[str]:
        """Return the cases that are missing or were made from another image or specification."""
        entries = Manifest(self.folder).present()
        return [
            name
            for name, case in self.cases.items()
            if (cases is None or name in cases)
            and (name not in entries or not self.spec.is_made_from(entries[name], case))
        ]

    def shard_command(self, number: int, count: int, device: str) -> Command:
        """Return the command that preprocesses the unfinished cases of a shard."""
        return build_command(
            "preprocess", dataset=self.preprocessed.name, configurations=[self.configuration],
            plans=self.plans, processes=self.processes, shards=count, only=number, worker=True,
        )  # fmt: skip

    def preprocess_shard(self, shard: Shard[UnlabelledPreprocessing], num_processes: int) -> None:
        """Preprocess the unfinished cases of a shard."""
        cases = list(shard.cases().values())
        preprocess_cases(cases, self.spec, self.folder, num_processes, str(shard), shard)


def require_idle_shards(folder: Path) -> None:
    """Raise a UserError if any process works on a shard of a preprocessed folder."""
    if working := holders(get_shards_folder(folder)):
        shard, holder = next(iter(working.items()))
        raise UserError(
            f"{len(working)} shards of {folder} are being worked on ({shard}: {holder})",
            fix="wait until they have ended, or end them, then run the same command again",
        )
