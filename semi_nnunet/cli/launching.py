"""The options of verbs that launch jobs: on this machine, on SLURM or on Ray."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser, on_cpu: bool = False) -> None:
    """The options of all verbs that launch jobs.

    Args:
        parser: of the verb.
        on_cpu: its jobs use no other device.
    """
    add = parser.add_argument
    if on_cpu:
        add("--device", "-device", default="cpu", help=argparse.SUPPRESS)
    else:
        add_device(parser)
    add("--jobs", type=int, help="at a time (default: one for each GPU; 1 on the CPU; all that fit "
        "on a cluster)")  # fmt: skip
    add("--threads", type=int, metavar="N", help="cores for each job (default: this machine's, "
        "shared among the jobs; on Ray a node's for each GPU, or 1)")  # fmt: skip
    add("--launcher", choices=["local", "slurm", "ray"], default="local", help="%(default)s")
    add("--sbatch", default="", metavar="OPTIONS", help="of sbatch, as --sbatch='--gres=gpu:1'")
    add("--ray-address", metavar="ADDRESS", help="of a running cluster (ray only; default: "
        "RAY_ADDRESS, else this machine)")  # fmt: skip
    add("--only", type=int, help=argparse.SUPPRESS)  # the job of a process of a cluster


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option of all verbs whose commands compute on a device."""
    devices = ["cpu", "cuda", "mps"]
    how = "default: cuda if there is one"
    parser.add_argument("--device", "-device", choices=devices, help=how)  # ours, nnU-Net's
