"""Run jobs on a SLURM cluster as tasks of a job array, requeued when their time is up."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_text

WARNING_S = 120  # before the time limit: the training stops, and continues in a new task


def build_batch_script(
    arguments: Sequence[str],
    indices: Sequence[int],
    at_a_time: int,
    logs: Path,
    sbatch: str,
    after: str | None = None,
) -> str:
    """Return the script of an array whose task N runs job N of the list.

    Args:
        arguments: of ``semi_nnunet``, from which every task makes the same list; with --only N it
            runs one job.
        indices: of the jobs to run.
        at_a_time: number of tasks that may run at once.
        logs: folder for SLURM's logs.
        sbatch: further options of sbatch, such as "--partition=gpu --gres=gpu:1".
        after: number of an array that must end, successfully or not, before this one starts.

    Raises:
        UserError: a folder or option has a line break, after which the shell would read commands.
    """
    options = [*([f"--dependency=afterany:{after}"] if after else []), *shlex.split(sbatch)]
    command = shlex.join([sys.executable, "-m", "semi_nnunet.cli.main", *arguments])
    output = shlex.quote(str(logs).replace("%", "%%"))  # sbatch has names of its own with %
    for text in (output, *options):
        if not text.isprintable():
            raise UserError(
                f"folders and options for sbatch must have no line breaks or control characters, "
                f"got {text!a}",
                fix="rename the folder, or correct --sbatch",
            )
    return f"""#!/bin/bash
#SBATCH --job-name=semi_nnunet
#SBATCH --array={",".join(map(str, indices))}%{at_a_time}
#SBATCH --output={output}/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{WARNING_S}
{"".join(f"#SBATCH {shlex.quote(option)}" + chr(10) for option in options)}
# when the time is nearly up: stop, and continue in a new task
trap 'scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1
{command} --only "$SLURM_ARRAY_TASK_ID" &
child=$!
trap 'kill -TERM "$child"' TERM
while kill -0 "$child" 2> /dev/null; do wait "$child"; done
wait "$child"
"""


def require_sbatch() -> None:
    """Check that this machine has sbatch.

    Raises:
        UserError: it has not.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--launcher slurm needs sbatch, found none", fix="run it on the cluster's login node"
        )


def submit_script(script: str, path: Path) -> str:
    """Write the script, submit it with sbatch, and return the number of the array.

    Raises:
        UserError: sbatch is missing, or refuses the script.
    """
    require_sbatch()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, script)
    run = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if run.returncode:
        raise UserError(
            f"sbatch refused {path}: {run.stderr.strip()}",
            fix="if it names an option, "
            "correct --sbatch='--partition=gpu --gres=gpu:1 --time=1-00:00:00'; else try sinfo",
        )
    return run.stdout.strip().split(";")[0]
