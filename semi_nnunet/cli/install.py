"""Install a model that came as a zip, without running or overwriting anything.

    semi_nnunet install Dataset042_....zip

The zip is looked at before it is unpacked, its checkpoints hold tensors and plain values only, and
a different model of the same name stays. nnUNetv2_install_pretrained_model_from_zip checks none of
this.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, metavar="ZIP", help="written by export")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.deploy.install import install
    from semi_nnunet.util.errors import printable

    installed = install(args.archive)
    for name in installed.left_out:
        print(printable(f"left out: {name}"))
    for folder in installed.models:
        print(printable(f"installed {folder}"))
