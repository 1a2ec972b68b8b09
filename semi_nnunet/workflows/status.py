"""Report the state and remaining time of a data set's trainings."""

from __future__ import annotations

from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.raw.layout import SETTINGS_JSON
from semi_nnunet.runs.folders import find_folders, is_older
from semi_nnunet.runs.job import Job, build_training_command
from semi_nnunet.runs.local import get_failure_file
from semi_nnunet.runs.progress import (
    estimate_seconds_left,
    parse_logged_epochs,
    read_epoch_seconds,
)
from semi_nnunet.runs.seeds import split_seed_name
from semi_nnunet.runs.trainings import find_jobs, read_requested_jobs, require_trained
from semi_nnunet.training.one_launch import TRAINING_LOCK
from semi_nnunet.util.command import typed
from semi_nnunet.util.lock import holder_of
from semi_nnunet.util.progress import readable_time
from semi_nnunet.workflows.next_step import detect_device


def report_trainings(dataset: str, plans: str | None = None) -> list[str]:
    """Return a line for each training and a summary: see :func:`semi_nnunet.status`."""
    folders = find_folders(dataset)
    jobs = find_jobs(folders, plans)
    begun = {job.folder for job in jobs}  # plans may be named like those of a seed
    jobs += [job for job in read_requested_jobs(folders, plans) if job.folder not in begun]
    if not jobs:
        require_trained(folders, plans or "")
        return [f"nothing was trained yet{f' with {plans}' if plans else ''}"]
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(plans or split_seed_name(job.plans)[0], []).append(job)
    lines = []
    for name, group in sorted(groups.items()):
        lines.append(f"{name}:")
        lines += [f"  {job}: {describe_job(job)}" for job in group]
        lines.append(f"  {summarize_jobs(group)}")
    return lines


def describe_job(job: Job) -> str:
    """Return the state of a job, with the remaining time of its training.

    Our trainings hold a lock, also if started by hand, which distinguishes a stopped training from
    a running one. For nnU-Net's own trainers this is not known.
    """
    holder = holder_of(job.lock) or holder_of(job.folder / TRAINING_LOCK)
    seconds = estimate_seconds_left(job)
    is_stopped = False
    if holder:
        state = f"running, {holder}"
    elif job.is_done:
        return "done"
    elif job.is_trained:
        state = "trained; predictions or metrics are missing or outdated"
    elif job.is_begun:
        has_settings = (job.folder / SETTINGS_JSON).is_file()  # written with the lock held
        is_stopped = job.trainer in our_trainers() and has_settings
        state = "stopped before its end" if is_stopped else "begun"
    else:
        state = "not begun"
    failure = None if holder else read_failure(job)
    if failure is not None:
        return f"{state}; failed: {extract_reason(failure)}. See {job.log}"
    if seconds is not None:
        epochs = len(read_epoch_seconds(job))
        state += f"; {epochs} epochs done, about {readable_time(seconds)} left"
    elif not job.is_trained and (epochs_done := str(parse_logged_epochs(job))):
        state += f"; {epochs_done}"
    if not is_stopped:
        return state
    return f"{state}. Continue: {typed(next(build_training_command(job, detect_device())))}"


def read_failure(job: Job) -> str | None:
    """Return why a job failed; None if it did not fail, or was trained by hand since."""
    note = get_failure_file(job)
    if not note.is_file():
        return None
    if any(is_older(note, log) for log in job.folder.glob("training_log_*.txt")):
        return None
    return note.read_text(encoding="utf-8")


def summarize_jobs(jobs: list[Job]) -> str:
    """Return how many jobs are done, and how long the others take one after another."""
    text = f"{sum(job.is_done for job in jobs)} of {len(jobs)} done"
    untrained = [job for job in jobs if not job.is_trained]
    if not untrained:
        return text
    durations = {job: sum(read_epoch_seconds(job)) for job in jobs if job.is_trained}
    estimates = [
        estimate_seconds_left(job) if job.is_begun else estimate_training_seconds(job, durations)
        for job in untrained
    ]
    seconds = [estimate for estimate in estimates if estimate is not None]
    if not seconds:
        return text
    bound = "at least " if len(seconds) < len(estimates) else ""
    total = readable_time(sum(seconds))
    return f"{text}; {bound}about {total} of training left, one after another"


def estimate_training_seconds(job: Job, durations: dict[Job, float]) -> float | None:
    """Return the mean seconds of trainings with this configuration.

    Trainings of the same trainer count, or if there are none, of any.
    """
    similar = {j: s for j, s in durations.items() if j.configuration == job.configuration and s}
    same_trainer = [s for j, s in similar.items() if j.trainer == job.trainer]
    seconds = same_trainer or [*similar.values()]
    return sum(seconds) / len(seconds) if seconds else None


def extract_reason(note: str) -> str:
    """Return the first line of a failure's note, with the last line of output that follows it.

    >>> extract_reason("python failed (exit code 1). Its last lines:\\n    no such file\\n")
    'python failed (exit code 1): no such file'
    """
    first, *rest = [line for line in note.split("\n") if line.strip()] or ["for an unknown reason"]
    output = [line.strip() for line in rest if line.startswith(" ")]
    reason = first.removesuffix(". Its last lines:").removesuffix(":")
    return ": ".join([reason, *output[-1:]]).removesuffix(".")
