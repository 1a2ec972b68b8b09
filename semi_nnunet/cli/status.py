"""Say what is done, running, begun and still to come of a data set's trainings; how long to go.

    semi_nnunet status -d 42

Looks at the results folder alone, so that it also shows what another machine, or nnU-Net's own
commands, trained there.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.runs.job import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-p", dest="plans", help="only trainings with these (default: with any)")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.crossval import (
        asked_jobs,
        folders_of,
        found_jobs,
        require_trained,
        unseeded,
    )

    folders = folders_of(args.dataset)
    jobs = found_jobs(folders, args.plans)
    known = {job.folder for job in jobs}  # plans may be named like those of a seed
    jobs += [job for job in asked_jobs(folders, args.plans) if job.folder not in known]
    if not jobs:
        require_trained(folders, args.plans or "")
        print(f"nothing was trained yet{f' with {args.plans}' if args.plans else ''}")
    of_plans: dict[str, list[Job]] = {}
    for job in jobs:
        plans, _ = (args.plans, 0) if args.plans else unseeded(job.plans)
        of_plans.setdefault(plans, []).append(job)
    for plans, group in sorted(of_plans.items()):
        print(f"{plans}:")
        for job in group:
            print(f"  {job}: {state_of(job)}")
        print(f"  {in_all(group)}")


def state_of(job: Job) -> str:
    """What is known of a job, and how long its training has to go."""
    from semi_nnunet.util.lock import holder_of
    from semi_nnunet.util.progress import readable_time

    holder, left = holder_of(job.lock), job.seconds_left()
    if holder:
        state = f"running, {holder}"
    elif job.is_done:
        return "done"
    elif job.is_trained:
        state = "trained; predictions or metrics are missing"
    else:
        state = "begun" if job.is_begun else "not begun"
    failure = None if holder else failure_of(job)
    if failure is not None:
        return f"{state}; failed: {reason_in(failure)}. See {job.log}"
    if left is not None:
        state += f"; {len(job.epoch_times())} epochs done, about {readable_time(left)} left"
    elif not job.is_trained and (epochs := str(job.logged_epochs())):  # of how many is not told
        state += f"; {epochs}"
    return state


def failure_of(job: Job) -> str | None:
    """Why the job failed when it last ran; None if it did not, or was trained by hand since."""
    from semi_nnunet.runs.job import is_older
    from semi_nnunet.runs.local import failure_note

    note = failure_note(job)
    if not note.is_file():
        return None
    if any(is_older(note, log) for log in job.folder.glob("training_log_*.txt")):
        return None
    return note.read_text()


def in_all(jobs: list[Job]) -> str:
    """How many jobs are done, and how long the other trainings take one after another."""
    from semi_nnunet.util.progress import readable_time

    text = f"{sum(job.is_done for job in jobs)} of {len(jobs)} done"
    trainings = [job for job in jobs if not job.is_trained]
    if not trainings:
        return text
    took = {job: sum(job.epoch_times()) for job in jobs if job.is_trained}
    left = [job.seconds_left() if job.is_begun else mean_time(job, took) for job in trainings]
    known = [seconds for seconds in left if seconds is not None]
    if not known:
        return text
    least = "at least " if len(known) < len(left) else ""
    return f"{text}; {least}about {readable_time(sum(known))} of training left, one after another"


def mean_time(job: Job, took: dict[Job, float]) -> float | None:
    """Seconds that trainings of the configuration took: the trainer's own, else those of any."""
    like = {one: s for one, s in took.items() if one.configuration == job.configuration and s}
    own = [s for one, s in like.items() if one.trainer == job.trainer] or [*like.values()]
    return sum(own) / len(own) if own else None


def reason_in(note: str) -> str:
    """The first line of a failure's note; where lines of output follow, also the last of them."""
    first, *more = [line for line in note.split("\n") if line.strip()] or ["for an unknown reason"]
    output = [line.strip() for line in more if line.startswith(" ")]
    what = first.removesuffix(". Its last lines:").removesuffix(":")
    return ": ".join([what, *output[-1:]]).removesuffix(".")
