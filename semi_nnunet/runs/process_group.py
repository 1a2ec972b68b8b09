"""Processes that ``torchrun`` starts, on one machine or on many, train a fold together.

::

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
        --max_restarts 3 -m semi_nnunet train 42 3d_fullres 0 -tr SemiUnifiedTrainer --c

``nnUNetv2_train -num_gpus`` starts its processes itself, therefore on one machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist

from semi_nnunet.discovery.listing import stock_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.util.errors import Problem, UserError

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by every launcher


def is_launched() -> bool:
    """Whether a launcher has told this process its number among others."""
    return all(name in os.environ for name in TOLD) and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Whether this process speaks for all that train together."""
    return not is_launched() or os.environ["RANK"] == "0"


def launch_problems(trainer: str, gpus: int, has_weights: bool) -> Iterator[Problem]:
    """What cannot be trained by processes of a launcher.

    Args:
        trainer: class name.
        gpus: of -num_gpus.
        has_weights: whether -pretrained_weights are given.
    """
    if not is_launched():
        return
    taken = "takes the number of a process for that of a GPU, which holds on one machine alone"
    if trainer in stock_trainers():
        fix = f"-tr {BASELINE}, which trains as nnU-Net does, or nnUNetv2_train -num_gpus"
        yield Problem(f"-tr {trainer}", taken, fix)
    if has_weights:
        fix = "semi_nnunet plan --set pretrained=FILE"
        yield Problem("-pretrained_weights", f"nnU-Net {taken}", fix)
    if gpus > 1:
        what = f"{os.environ['WORLD_SIZE']} processes are there already, each with a GPU"
        yield Problem(f"-num_gpus {gpus}", what, "leave it out")


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Inside the block, processes of a launcher can talk: by NCCL on GPUs, else by gloo.

    Without a launcher, or where the caller has made the group, nothing is done.

    Args:
        device: "cuda" or "cpu".

    Raises:
        UserError: there is no GPU for this process.
    """
    if not is_launched() or dist.is_initialized():
        yield
        return
    if device == "cuda":
        number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= count:
            raise UserError(
                f"each process needs a GPU of its own, this one is number {number} (from 0) of "
                f"its machine, which has {count}",
                fix=f"--nproc_per_node {count}",
            )
        torch.cuda.set_device(number)
        torch.set_num_threads(1)  # as nnUNetv2_train does
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    yield
    dist.destroy_process_group()  # after an error it would wait for processes that are gone
