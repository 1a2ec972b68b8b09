"""Make a trained model a challenge submission: a folder to build and run without network.

    semi_nnunet package -m Dataset042_Pancreas/MODEL -f 0 -o my_team --contract flare22
    semi_nnunet package -m exported.zip -o my_team --device cpu --fast

The folder holds the weights and nothing of the training, pinned wheels of what a prediction
imports, a Dockerfile, an Apptainer definition, predict.sh with the challenge's folders and file
names, licences and a model card. Without a GPU in the contract, or with --device cpu, no CUDA is
packed: pip must find a PyTorch of the version +cpu, in an index that --extra-index-url or pip's
settings name, or in the folder --wheels. The model is read without executing anything of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.challenge.contracts import CONTRACTS

    add, default = parser.add_argument, "default: %(default)s"
    model = "folder TRAINER__PLANS__CONFIGURATION, a fold in it, or a zip of semi_nnunet export"
    add("-m", dest="model", required=True, metavar="MODEL", help=model)
    add("-o", dest="out", type=Path, required=True, help="new folder; its name is the image's")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: every finished fold")
    add("--contract", choices=tuple(CONTRACTS), default="generic", help=default)
    device = "default: as the contract says; cuda: a GPU is used if there is one"
    add("--device", "-device", dest="device", choices=("cpu", "cuda"), help=device)
    speed = parser.add_mutually_exclusive_group()
    for name, what in (("exact", "the labels of nnUNetv2_predict"), ("fast", "no mirrored images")):
        speed.add_argument(
            f"--{name}", dest="speed", action="store_const", const=name, default="alike", help=what
        )
    step = "between tiles, as a fraction of the patch (default: 0.5, nnU-Net's)"
    add("--step", type=float, metavar="FRACTION", help=step)
    add("--licence", metavar="TEXT", help="of the weights, for the model card")
    pin = "take another version than the installed one, such as torch==VERSION+cpu"
    add("--pin", dest="pins", nargs="+", default=[], metavar="NAME==VERSION", help=pin)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--wheels", type=Path, metavar="FOLDER",
        help="take all wheels from here, without network, such as those of another submission",
    )  # fmt: skip
    where.add_argument("--extra-index-url", metavar="URL", help="where pip looks, too")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.challenge.packaging import package
    from semi_nnunet.util.files import amount

    made = package(
        args.model, args.out, contract=args.contract, folds=args.folds, device=args.device,
        speed=args.speed, step=args.step, licence=args.licence, pins=args.pins,
        wheel_folder=args.wheels, extra_index_url=args.extra_index_url,
    )  # fmt: skip
    print(f"{args.out} is a submission for {made.contract.about}:")
    for part in made.parts:
        print(f"  {amount(part.size):>10}  {part.name:<18} {part.what}")
    print(f"  {amount(made.size):>10}  together")
    print(f"build:   docker build -t {made.name} {args.out}")
    print(f"run:     {made.call}")
    print(f"try:     sh {args.out}/install.sh trial   (without docker)")
    print("         sh trial/workspace/predict.sh INPUTS OUTPUTS")
    limit = "" if made.contract.limit is None else f" --limit {made.contract.limit:g}"
    print(f"measure: semi_nnunet efficiency -i imagesTs -o measured{limit} --command \\")
    print('         "sh trial/workspace/predict.sh {inputs} {outputs}"')
