"""Say what is done, running, begun and still to come of a data set's trainings; how long to go.

    semi_nnunet status -d 42

Looks at the results folder alone, so that it also shows what another machine, or nnU-Net's own
commands, trained there.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-p", dest="plans", help="only trainings with these (default: with any)")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.crossval import asked_jobs, folders_of, found_jobs, unseeded
    from semi_nnunet.runs.local import failure_note
    from semi_nnunet.runs.lock import holder_of
    from semi_nnunet.watch import readable_time

    folders = folders_of(args.dataset)
    jobs = found_jobs(folders, args.plans)
    known = {job.folder for job in jobs}  # plans may be named like those of a seed
    jobs += [job for job in asked_jobs(folders, args.plans) if job.folder not in known]
    if not jobs:
        print(f"nothing was trained yet{f' with {args.plans}' if args.plans else ''}")
    shown = None
    for job in sorted(jobs, key=lambda job: unseeded(job.plans)[0]):
        plans, _ = (args.plans, 0) if args.plans else unseeded(job.plans)
        if plans != shown:
            print(f"{plans}:")
            shown = plans
        holder, left = holder_of(job.lock), job.seconds_left()
        if holder:
            state = f"running, {holder}"
        elif job.is_done:
            state = "done"
        elif job.is_trained:
            state = "trained; predictions or metrics are missing"
        else:
            state = "begun" if job.is_begun else "not begun"
        note = failure_note(job)
        if not (holder or job.is_done) and note.is_file():
            state += f"; failed: {reason_in(note.read_text())}. See {job.log}"
        elif left is not None:
            state += f"; {len(job.history().rows)} epochs done, about {readable_time(left)} left"
        print(f"  {job}: {state}")


def reason_in(note: str) -> str:
    """The first line of a failure's note; where lines of output follow, also the last of them."""
    first, *more = [line for line in note.split("\n") if line.strip()] or ["for an unknown reason"]
    output = [line.strip() for line in more if line.startswith(" ")]
    what = first.removesuffix(". Its last lines:").removesuffix(":")
    return ": ".join([what, *output[-1:]]).removesuffix(".")
