"""The batch script of a cluster, run by a stand-in for sbatch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.runs.launching import build_batch_script, submit_script
from semi_nnunet.util.errors import UserError

SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
tasks = re.search(r"--array=([\\d,]+)%", script)[1].split(",")
for task in tasks:
    env = {{**os.environ, "SLURM_ARRAY_TASK_ID": task}}
    subprocess.run(["bash", sys.argv[-1]], env=env, check=True, stdout=sys.stderr)
print("4711;cluster")
"""


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that runs every task of an array at once, one after the other."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "sbatch"
    program.write_text(SBATCH.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return program


def test_every_task_runs_only_its_own_job(sbatch, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    words = ["crossval", "-d", "7", "-tr", "A B"]  # a name with a space stays one word
    script = build_batch_script(words, [0, 2], 2, tmp_path, "--partition=gpu --gres=gpu:1")
    assert "#SBATCH --partition=gpu\n#SBATCH --gres=gpu:1\n" in script
    assert "#SBATCH --array=0,2%2" in script and "#SBATCH --requeue" in script
    fake = f"import sys; open({str(ran)!r}, 'a').write(repr(sys.argv[1:]) + chr(10))"
    script = script.replace("-m semi_nnunet.cli.main", f'-c "{fake}"')
    assert submit_script(script, tmp_path / "logs" / "array.sh") == "4711"
    lines = [eval(line) for line in ran.read_text().splitlines()]
    assert lines == [[*words, "--only", number] for number in ("0", "2")]


def test_a_folder_with_spaces_and_signs_of_sbatchs_own_is_quoted(tmp_path):
    script = build_batch_script(["crossval"], [0], 1, Path("/my data/50%A"), "--comment='a b'")
    assert "#SBATCH --output='/my data/50%%A'/%A_%a.log\n" in script
    assert "#SBATCH '--comment=a b'\n" in script


def test_a_task_that_is_ended_ends_its_training(tmp_path):
    script = build_batch_script(["crossval"], [0], 1, tmp_path, "").replace(
        "-m semi_nnunet.cli.main crossval", "-c 'import time; print(1, flush=True); time.sleep(60)'"
    )
    path = tmp_path / "array.sh"
    path.write_text(script)
    process = subprocess.Popen(["bash", str(path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.terminate()
    assert process.wait(10) != 0
    assert not process.stdout.read()  # closed: no process is left that could write to it


def test_a_refusal_of_sbatch_is_reported_with_its_reason(sbatch, tmp_path):
    sbatch.write_text("#!/bin/sh\necho 'invalid partition specified: gpuu' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"invalid partition specified: gpuu.*Fix"):
        submit_script("#!/bin/bash\n", tmp_path / "array.sh")


def test_without_sbatch_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="login node"):
        submit_script("#!/bin/bash\n", tmp_path / "array.sh")


@pytest.mark.slow
def test_the_array_trains_unfinished_jobs(sbatch, folders, capsys):
    options = ["-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0", "--device", "cpu"]
    words = ["crossval", *options, "-tr", "SemiBaselineTrainer", "--launcher", "slurm"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "submitted 1 of 1 jobs as array 4711" in output
    assert main(words) == 0
    assert "1 jobs, 1 done before" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["a\ntouch executed\n", "a\rb"])
def test_a_line_break_in_a_folder_runs_no_line_of_the_script(folder, tmp_path):
    with pytest.raises(UserError, match="no line breaks"):
        build_batch_script(["crossval"], [0], 1, tmp_path / folder, "")
