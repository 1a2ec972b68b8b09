"""Train one fold by several processes that a launcher starts, on one machine or on many.

::

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
        --max_restarts 3 \\
        -m semi_nnunet.runs.torchrun 42 3d_fullres 0 -tr SemiMeanTeacherTrainer --c

``nnUNetv2_train -num_gpus`` starts its processes itself, therefore on one machine. The options have
the names that they have there.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import distributed as dist

from semi_nnunet.discovery.listing import stock_trainers
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.runs.train import train
from semi_nnunet.util.errors import UserError, print_user_errors_plainly

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by every launcher


def main(words: Sequence[str] | None = None) -> None:
    """What each of the processes does.

    Args:
        words: of the command line; None: of this process.

    Raises:
        UserError: no launcher has started this process, or the training cannot start.
    """
    print_user_errors_plainly()
    options = parser().parse_args(words)
    if options.tr in stock_trainers():
        raise UserError(
            f"{options.tr} takes the number of a process for that of a GPU, which holds on one "
            f"machine alone. Fix: -tr SemiBaselineTrainer, which trains as nnU-Net does, or "
            f"nnUNetv2_train -num_gpus"
        )
    with process_group(options.device):
        train(
            options.dataset, options.configuration, options.fold, options.tr, plans=options.p,
            resume=options.c, device=options.device, npz=options.npz,
        )  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The options, a choice of those of ``nnUNetv2_train``."""
    made = argparse.ArgumentParser("semi_nnunet.runs.torchrun", description=__doc__)
    made.add_argument("dataset", help="number or name")
    made.add_argument("configuration", help="such as 2d")
    made.add_argument("fold", help="a number, or all")
    made.add_argument("-tr", default="SemiMeanTeacherTrainer", help="trainer (%(default)s)")
    made.add_argument("-p", default="nnUNetPlans", help="identifier of the plans (%(default)s)")
    made.add_argument("-device", choices=("cuda", "cpu"), help="cuda where there is one, else cpu")
    made.add_argument("--c", action="store_true", help="go on from the last checkpoint, if any")
    made.add_argument("--npz", action="store_true", help="keep probabilities of the validation")
    return made


@contextmanager
def process_group(device: str | None) -> Iterator[None]:
    """Inside the block, the processes can talk to each other: by NCCL on GPUs, else by gloo.

    Args:
        device: "cuda" or "cpu"; None: cuda if there is one.

    Raises:
        UserError: no launcher has told this process which one it is, or there is no GPU for it.
    """
    if missing := [name for name in TOLD if name not in os.environ]:
        raise UserError(
            f"a launcher tells each process its number, but {', '.join(missing)} is not set. Fix: "
            f"torchrun --nproc_per_node GPUS -m semi_nnunet.runs.torchrun ..."
        )
    on_gpu = find_resources(device).device == "cuda"
    if on_gpu:
        number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= count:
            raise UserError(
                f"each process needs a GPU of its own, this one is number {number} (from 0) of "
                f"its machine, which has {count}. Fix: --nproc_per_node {count}"
            )
        torch.cuda.set_device(number)
        torch.set_num_threads(1)  # as nnUNetv2_train does
    dist.init_process_group("nccl" if on_gpu else "gloo")
    yield
    dist.destroy_process_group()  # after an error it would wait for processes that are gone


if __name__ == "__main__":  # the workers of the validation import this file again
    main()
