"""What is done, running, begun and still to come of a data set's trainings, and how long to go."""

from __future__ import annotations

from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.runs.folders import folders_of, is_older
from semi_nnunet.runs.job import Job, training
from semi_nnunet.runs.local import failure_note
from semi_nnunet.runs.next_step import device_here
from semi_nnunet.runs.progress import epoch_times, logged_epochs, seconds_left
from semi_nnunet.runs.seeds import unseeded
from semi_nnunet.runs.trainings import asked_jobs, found_jobs, require_trained
from semi_nnunet.training.one_launch import LOCK
from semi_nnunet.util.command import typed
from semi_nnunet.util.lock import holder_of
from semi_nnunet.util.progress import readable_time


def status(dataset: str, plans: str | None = None) -> list[str]:
    """Say how far the trainings of a data set are, from its results folder alone.

    Args:
        dataset: number or name.
        plans: only trainings with these, and with their seeds; None: with any.

    Returns:
        A line for each training, below the name of its plans, and one about all of them.

    Raises:
        UserError: there is no such data set, or nothing was trained with these plans, though with
            others.
    """
    folders = folders_of(dataset)
    jobs = found_jobs(folders, plans)
    known = {job.folder for job in jobs}  # plans may be named like those of a seed
    jobs += [job for job in asked_jobs(folders, plans) if job.folder not in known]
    if not jobs:
        require_trained(folders, plans or "")
        return [f"nothing was trained yet{f' with {plans}' if plans else ''}"]
    of_plans: dict[str, list[Job]] = {}
    for job in jobs:
        name, _ = (plans, 0) if plans else unseeded(job.plans)
        of_plans.setdefault(name, []).append(job)
    lines = []
    for name, group in sorted(of_plans.items()):
        lines.append(f"{name}:")
        lines += [f"  {job}: {state_of(job)}" for job in group]
        lines.append(f"  {in_all(group)}")
    return lines


def state_of(job: Job) -> str:
    """Tell the state of a job, and the seconds its training has to go.

    A training of ours holds a lock, whoever started it, so that one whose process is gone is told
    from one that is at work.
    """
    holder, left = holder_of(job.lock) or holder_of(job.folder / LOCK), seconds_left(job)
    stopped = False
    if holder:
        state = f"running, {holder}"
    elif job.is_done:
        return "done"
    elif job.is_trained:
        state = "trained; predictions or metrics are missing"
    elif job.is_begun:
        stopped = holds_a_lock(job)
        state = "stopped before its end" if stopped else "begun"
    else:
        state = "not begun"
    failure = None if holder else failure_of(job)
    if failure is not None:
        return f"{state}; failed: {reason_in(failure)}. See {job.log}"
    if left is not None:
        state += f"; {len(epoch_times(job))} epochs done, about {readable_time(left)} left"
    elif not job.is_trained and (epochs := str(logged_epochs(job))):  # of how many is not told
        state += f"; {epochs}"
    return f"{state}. Go on: {to_go_on(job)}" if stopped else state


def holds_a_lock(job: Job) -> bool:
    """Whether the training is one that holds a lock while it runs: of ours, since its settings.

    Of nnU-Net's own trainers nobody can tell whether they are at work.
    """
    return job.trainer in our_trainers() and (job.folder / "semi_settings.json").is_file()


def to_go_on(job: Job) -> str:
    """What to type for a training to go on from its last checkpoint, on this machine."""
    return typed(next(training(job, device_here())))


def failure_of(job: Job) -> str | None:
    """Read why a job failed; None if it did not, or was trained by hand since."""
    note = failure_note(job)
    if not note.is_file():
        return None
    if any(is_older(note, log) for log in job.folder.glob("training_log_*.txt")):
        return None
    return note.read_text(encoding="utf-8")


def in_all(jobs: list[Job]) -> str:
    """Say how many jobs are done, and how long the others take one after another."""
    text = f"{sum(job.is_done for job in jobs)} of {len(jobs)} done"
    trainings = [job for job in jobs if not job.is_trained]
    if not trainings:
        return text
    took = {job: sum(epoch_times(job)) for job in jobs if job.is_trained}
    left = [seconds_left(job) if job.is_begun else mean_time(job, took) for job in trainings]
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
