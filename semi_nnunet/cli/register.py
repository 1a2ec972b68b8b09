"""Let nnU-Net's own commands find our trainers in every shell, without any variable.

Writes one small file beside nnU-Net's own trainer variants; --undo removes it.
"""

from __future__ import annotations

import argparse

from semi_nnunet.discovery.register import register, shim_file, unregister


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--undo", action="store_true", help="remove the file again")


def run(args: argparse.Namespace) -> None:
    if not args.undo:
        print(f"wrote {register()}")
        print(
            "nnUNetv2_train now finds SemiMeanTeacherTrainer and the others; --undo takes it back"
        )
    elif unregister():
        print(f"removed {shim_file()}")
    else:
        print(f"nothing to remove: {shim_file()} is not there")
