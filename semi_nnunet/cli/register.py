"""Let nnU-Net's own commands find our trainers in every shell, without any variable.

Writes one small file beside nnU-Net's own trainer variants; --undo removes it. Where that folder is
not writable, set a variable instead:

    export nnUNet_extTrainer="$(semi_nnunet register --print)"
"""

from __future__ import annotations

import argparse

from semi_nnunet.discovery.register import TRAINERS_FOLDER, register, shim_file, unregister


def add_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--undo", action="store_true", help="remove the file again")
    how.add_argument(
        "--print",
        dest="print_folder",
        action="store_true",
        help="write nothing; print the folder to set nnUNet_extTrainer to",
    )


def run(args: argparse.Namespace) -> None:
    if args.print_folder:
        print(TRAINERS_FOLDER)
    elif not args.undo:
        print(f"wrote {register()}")
        print("nnUNetv2_train now finds SemiUnifiedTrainer and the others; --undo takes it back")
    elif unregister():
        print(f"removed {shim_file()}")
    else:
        print(f"nothing to remove: {shim_file()} is not there")
