"""Options that several verbs share: names on the command line, groups of the help, the launcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import LimitedChoice

if TYPE_CHECKING:
    from semi_nnunet.runs.launching import JobLauncher

Device = Literal["cpu", "cuda", "mps"]
FilterScore = Literal["disagreement", "checkpoints", "entropy", "change"]
View = Literal["flips", "rot90", "gamma", "blur", "noise", "equalize"]

FIRST = Group("Options", sort_key=1)
MODEL = Group("The model: -m, or the others", sort_key=2)
MORE = Group("More options", sort_key=3)
JOBS = Group("Where it runs", sort_key=4)


def option(
    *names: str, group: Group | tuple[Group, ...] = FIRST, several: bool = False, show: bool = True
) -> Parameter:
    """Declare an option of the command line.

    Args:
        names: spellings; none: the name of the parameter.
        group: in the help.
        several: takes one or more words.
        show: list it in the help.
    """
    return Parameter(
        name=names or None,
        group=group,
        consume_multiple=1 if several else None,
        negative="",
        show=show,
    )


def name_speed(exact: bool, fast: bool) -> Literal["exact", "fast", "alike"]:
    """Return the speed of a prediction for its two options, which exclude each other.

    >>> name_speed(exact=False, fast=False)
    'alike'
    """
    return "exact" if exact else "fast" if fast else "alike"


def one_of() -> Group:
    """Return a group of options that exclude each other."""
    return Group(show=False, validator=LimitedChoice())


NUMBER_OR_NAME = option("-d")
Dataset = Annotated[str, NUMBER_OR_NAME]
OptionalDataset = Annotated[str | None, NUMBER_OR_NAME]
NewId = Annotated[int, option()]
Plans = Annotated[str, option("-p")]
OptionalPlans = Annotated[str | None, option("-p")]
Configuration = Annotated[str, option("-c")]
OptionalConfiguration = Annotated[str | None, option("-c")]
Configurations = Annotated[Sequence[str] | None, option("-c", several=True)]
Trainers = Annotated[Sequence[str] | None, option("-tr", several=True)]
Folds = Annotated[Sequence[str] | None, option("-f", several=True)]
Model = Annotated[str | None, option("-m", group=MODEL)]
Models = Annotated[Sequence[str], option("-m", several=True, group=MODEL)]
ModelDataset = Annotated[str | None, option("-d", group=MODEL)]
ModelConfiguration = Annotated[str | None, option("-c", group=MODEL)]
ModelTrainer = Annotated[str | None, option("-tr", group=MODEL)]
ModelPlans = Annotated[str | None, option("-p", group=MODEL)]
ModelFolds = Annotated[Sequence[str] | None, option("-f", several=True, group=MODEL)]
Images = Annotated[Path, option("-i")]
OutputFolder = Annotated[Path, option("-o")]
OutputFile = Annotated[Path | None, option("-o")]
Processes = Annotated[int, option("-np", group=MORE)]
Views = Annotated[Sequence[View], option(several=True)]
Seeds = Annotated[int, option()]
ComputeDevice = Annotated[Device | None, option("--device", "-device")]
Flag = Annotated[bool, option()]
RareFlag = Annotated[bool, option(group=MORE)]


@Parameter(name="*")
@dataclass(frozen=True)
class Launcher:
    """Where jobs run: on this machine, as jobs of SLURM or as tasks of Ray.

    >>> Launcher("slurm", jobs=4, sbatch="--gres=gpu:1").jobs
    4

    Args:
        launcher: This machine (local), SLURM or Ray.
        device: Where networks compute (default: cuda if there is a GPU).
        jobs: Jobs at a time (default: one for each GPU, one on the CPU, all on a cluster).
        threads: Cores for each job (default: this machine's, shared; on Ray a node's per GPU).
        sbatch: More options of sbatch, such as --sbatch='--gres=gpu:1'.
        ray_address: Address of a Ray cluster (default: RAY_ADDRESS, else this machine).
        only: The job of this process; set by the launchers.
    """

    launcher: Annotated[Literal["local", "slurm", "ray"], option(group=JOBS)] = "local"
    device: Annotated[Device | None, option("--device", "-device", group=JOBS)] = None
    jobs: Annotated[int | None, option(group=JOBS)] = None
    threads: Annotated[int | None, option(group=JOBS)] = None
    sbatch: Annotated[str, Parameter(group=JOBS, show_default=False)] = ""
    ray_address: Annotated[str | None, option(group=JOBS)] = None
    only: Annotated[int | None, option(show=False)] = None

    def for_jobs(self) -> JobLauncher:
        """Return the launcher that runs the jobs, which needs PyTorch.

        Raises:
            UserError: a number is too small.
        """
        from semi_nnunet.runs.launching import JobLauncher

        return JobLauncher(**asdict(self))
