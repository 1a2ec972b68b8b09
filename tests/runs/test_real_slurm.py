"""A real SLURM of one node, started for the test, requeues a training, which continues."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.files import read_json, write_json
from semi_nnunet.runs.job import Job
from tests.runs.tiny import TINY, wait_for

EPOCHS = 12  # enough to be interrupted
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=20
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a cluster of this machine, with keys, ports and a state of its own."""
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent or not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip(f"SLURM needs root and its programs; absent: {', '.join(absent) or 'root'}")
    folder = tmp_path / "slurm"
    (folder / "spool").mkdir(parents=True)
    host, ports = socket.gethostname().split(".")[0], [free_port(), free_port()]
    cores = len(os.sched_getaffinity(0))
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(host=host, ports=ports, folder=folder, cores=cores))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    names = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
    munged = [f"--{option}={folder}/munge.{name}" for option, name in names.items()]
    with ExitStack() as stack:
        for command in (
            ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log", *munged],
            ["slurmctld", "-D", "-f", str(conf)],
            ["slurmd", "-D", "-f", str(conf)],
        ):
            stack.enter_context(running(command, folder))
            time.sleep(1)
        wait_for(lambda: "idle" in said("sinfo", "-h", "-o", "%t"), 30)
        yield folder


class running:
    """A daemon, ended after the block."""

    def __init__(self, command: list[str], folder: Path):
        self.log = (folder / f"{command[0]}.out").open("w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_training_whose_time_is_up_is_requeued_and_continues(slurm, folders, capsys):
    plans = read_json(folders.preprocessed / "tiny.json")
    write_json(folders.preprocessed / "tiny.json", {**plans, "semi": {**TINY, "epochs": EPOCHS}})
    words = ["crossval", "-d", folders.raw.name, "-c", "2d", "-p", "tiny", "-f", "0"]
    words += ["-tr", "SemiBaselineTrainer", "--device", "cpu"]
    assert main([*words, "--launcher", "slurm", "--sbatch=--time=1:00:00"]) == 0
    number = capsys.readouterr().out.split("as array ")[1].split(",")[0]
    job = Job(folders, "SemiBaselineTrainer", "2d", "0", 0, "tiny")
    try:
        wait_for((job.folder / "checkpoint_latest.pth").is_file, 240)
        said("scancel", "--signal=USR1", "--batch", f"{number}_0")  # as SLURM at --signal=B:USR1
        wait_for(lambda: "PENDING" in said("squeue", "-h", "-r", "-o", "%T"), 60)
        before = len(job.history().rows)
        assert 0 < before < EPOCHS and not job.is_trained
        wait_for(lambda: job.is_trained, 300)
    finally:
        said("scancel", number)
        wait_for(lambda: not said("squeue", "-h", "-o", "%i"), 60)
    log = next((folders.results / "semi_crossval").glob("*.log")).read_text()
    assert [row["epoch"] for row in job.history().rows] == list(range(EPOCHS))
    assert job.log.read_text().count("Loaded ") >= 1, log
