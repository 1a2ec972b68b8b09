"""``semi_nnunet demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from semi_nnunet.verbs.options import Device, Flag, option


def demo(
    out: Annotated[Path, option("-o")] = Path("semi_nnunet_demo"),
    *,
    device: Annotated[Device, option("--device", "-device")] = "cpu",
    keep_all: Flag = False,
) -> None:
    """Show on a phantom data set that unlabelled images help.

        semi_nnunet demo
        semi_nnunet demo -o somewhere --keep-all    keep data and models, to play with

    Draws images of a synthetic abdomen, 4 labelled and 28 unlabelled, trains nnU-Net on the
    labelled images and Mean Teacher on all images, and compares both on 10 test cases: a table,
    curves and overlays. It takes about six minutes on two CPU cores and prints every command, so
    that you can do the same with your data. Repeating it replaces its results.

    Args:
        out: Folder for everything that is written.
        device: Where networks compute.
        keep_all: Keep data, models and predictions at the end.

    Raises:
        UserError: ``out`` holds something else, the device does not exist, or a command failed.
    """
    from semi_nnunet.demo.run import run_demo

    run_demo(out, device, keep_all)
