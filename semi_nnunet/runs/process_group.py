"""Train a fold in processes that ``torchrun`` starts on one or several machines.

::

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
        --max_restarts 3 -m semi_nnunet train 42 3d_fullres 0 -tr SemiUnifiedTrainer --c

``nnUNetv2_train -num_gpus`` starts its processes itself and is limited to one machine.
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

# every launcher sets these
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Return whether a launcher started this process as one of several."""
    has_variables = all(name in os.environ for name in LAUNCHER_VARIABLES)
    return has_variables and int(os.environ["WORLD_SIZE"]) > 1


def is_first_process() -> bool:
    """Return whether this process prints for all processes that train together."""
    return not is_launched() or os.environ["RANK"] == "0"


def find_launch_problems(trainer: str, gpus: int, has_weights: bool) -> Iterator[Problem]:
    """Yield values of -tr, -num_gpus and -pretrained_weights that a launcher's process refuses."""
    if not is_launched():
        return
    reason = (
        "takes the rank of a process for the number of its GPU, which holds on one machine only"
    )
    if trainer in stock_trainers():
        fix = f"-tr {BASELINE}, which trains as nnU-Net does, or nnUNetv2_train -num_gpus"
        yield Problem(f"-tr {trainer}", reason, fix)
    if has_weights:
        fix = "semi_nnunet plan --set pretrained=FILE"
        yield Problem("-pretrained_weights", f"nnU-Net {reason}", fix)
    if gpus > 1:
        message = f"the launcher started {os.environ['WORLD_SIZE']} processes, each with a GPU"
        yield Problem(f"-num_gpus {gpus}", message, "leave it out")


@contextmanager
def join_process_group(device: str) -> Iterator[None]:
    """Connect the processes of a launcher inside the block: by NCCL on GPUs, else by gloo.

    Without a launcher, or inside a process group, this does nothing.

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
