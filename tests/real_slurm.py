"""A real SLURM of one node, started for a test."""

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

from tests.runs.tiny import wait_for

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
    """The folder of a cluster of this machine, with its own keys, ports and state."""
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
        try:
            yield folder
        finally:
            said("scancel", "--user=root")
            wait_for(lambda: not said("squeue", "-h", "-o", "%i"), 60)


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
    """Return the output of a command."""
    return subprocess.run(command, capture_output=True, text=True).stdout
