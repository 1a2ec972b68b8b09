"""Print the folder in which nnU-Net finds our trainers: the old spelling of register --print.

export nnUNet_extTrainer="$(semi_nnunet register --print)"
"""

from __future__ import annotations

import argparse

from semi_nnunet.discovery.register import TRAINERS_FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> None:
    print(TRAINERS_FOLDER)
