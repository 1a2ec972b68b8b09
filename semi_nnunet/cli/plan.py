"""Write the semi-supervised settings into the plans, and print each with its reason.

    semi_nnunet plan -d 42
    semi_nnunet plan -d 42 --set epochs=300 SemiMeanTeacherTrainer.consistency_weight=5
    semi_nnunet plan -d 42 --name nnUNetPlans_again --set seed=1
    semi_nnunet plan -d 42 --budget cpu
    semi_nnunet plan -d 42 --patch 80 112 112 --set labelled_batch_size=4
    semi_nnunet plan -d 42 -c 2d --spacing 0.8 0.8 --budget cpu
    semi_nnunet plan -d 42 --architecture smp.Unet --encoder resnet50 --weights imagenet
    semi_nnunet plan -d 42 -tr SemiMeanTeacherTrainer

Printed is what was decided for this data set and what was given, of the methods only with -tr; what
nnU-Net does anyway, and every other default, with --all.

Without plan, a trainer derives the same values when training starts. Planning again keeps what was
given by --set or edited by hand, unless --reset, and the sizes that were measured for the same
--budget, unless these plans are deleted first; it plans the rest anew. With --name, or --budget
(here nnUNetPlans_cpu: a small network, a short training), new plans are written beside the old
ones; they use the same preprocessed data. But where the small patch of a --budget would show less
than most of an image, images are made coarser, and are to be preprocessed anew. They get no coarser
than the labels survive: resampled there and back, every class must keep a Dice of .95. What the
labels keep is printed below each network. --spacing sets the spacing by hand, also a coarser one.
With --patch, the new plans (here nnUNetPlans_80x112x112) have the patch of a publication, and the
network that nnU-Net plans for it; with --budget, too, images are as coarse as that patch needs.
With --architecture, they have another network: of segmentation-models-pytorch (2d), of MONAI, or
Primus (3d).
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set"
    )
    parser.add_argument(
        "-p",
        dest="plans",
        default="nnUNetPlans",
        metavar="PLANS",
        help="plans to start from (default: %(default)s)",
    )
    parser.add_argument(
        "-c",
        dest="configurations",
        nargs="+",
        metavar="CONFIG",
        help="print only these (default: those that are preprocessed)",
    )
    parser.add_argument(
        "--budget",
        metavar="cpu|SECONDS",
        help="shrink network, patch, batch and length: cpu, or seconds per supervised step",
    )
    parser.add_argument(
        "--patch", type=int, nargs="+", metavar="EDGE",
        help="in voxels, in the order of the plans (2d: two numbers, else three)",
    )  # fmt: skip
    parser.add_argument(
        "--spacing", type=float, nargs="+", metavar="MM",
        help="of the images, in the order of the plans (2d: two numbers, else three)",
    )  # fmt: skip
    parser.add_argument(
        "--architecture", metavar="NAME", help="smp.Unet, monai.SegResNet, primus.S, ..."
    )
    parser.add_argument(
        "--encoder", default="resnet34", help="of smp's networks (default: %(default)s)"
    )
    parser.add_argument(
        "--weights",
        default="none",
        metavar="imagenet|FILE|none",
        help="of smp's encoder before the training (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        "-device",
        default="cpu",
        help="to measure --budget SECONDS on (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        dest="assignments",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="give settings; KEY, CONFIG.KEY, TRAINER.KEY or TRAINER.CONFIG.KEY",
    )
    parser.add_argument("--name", metavar="NEW_PLANS", help="write new plans of this name")
    parser.add_argument(
        "-tr",
        dest="trainers",
        nargs="+",
        default=[],
        metavar="TRAINER",
        help="print the settings of these methods, too",
    )
    parser.add_argument("--all", action="store_true", help="print every setting of every trainer")
    parser.add_argument(
        "--reset", action="store_true", help="forget what was given or edited before"
    )


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.planning.shown import decided_settings, every_setting
    from semi_nnunet.runs.next_step import to_preprocess, to_train
    from semi_nnunet.runs.plan import plan

    made = plan(
        args.dataset, plans=args.plans, name=args.name, configurations=args.configurations,
        settings=args.assignments, budget=args.budget, patch=args.patch,
        spacing=args.spacing, architecture=args.architecture, encoder=args.encoder,
        weights=args.weights, device=args.device, reset=args.reset, trainers=args.trainers,
    )  # fmt: skip
    if made.keeps_sizes:
        print(f"{made.name} keeps the sizes measured before (without {made.name}.json, anew)")
    if args.all:
        lines = every_setting(made.rows, made.configurations)
    else:
        lines = decided_settings(made.rows, made.configurations, args.trainers)
    print(*lines, "", *made.networks, sep="\n")
    option = "" if made.name == "nnUNetPlans" else f"; use it with -p {made.name}"
    print(f"wrote {made.path}{option}")
    if made.coarser:
        words = to_preprocess(args.dataset, made.name, made.coarser)
        print(f"next, as its spacing is new: {words}")
    elif made.ready:
        print(f"next: {to_train(args.dataset, made.name, made.ready[0])[0]}")
    else:
        print(f"next: {to_preprocess(args.dataset, made.name, made.configurations)}")
