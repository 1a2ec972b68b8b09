"""Write the semi-supervised settings into the plans, and print each with its reason.

    semi_nnunet plan -d 42
    semi_nnunet plan -d 42 --set epochs=300 SemiMeanTeacherTrainer.consistency_weight=5
    semi_nnunet plan -d 42 --name nnUNetPlans_again --set seed=1
    semi_nnunet plan -d 42 --budget cpu
    semi_nnunet plan -d 42 --patch 80 112 112 --set labelled_batch_size=4
    semi_nnunet plan -d 42 --architecture smp.Unet --encoder resnet50 --weights imagenet

Without it a trainer derives the same values when training starts. Planning again keeps what was
given by --set or edited by hand, unless --reset, and the sizes that were measured for the same
--budget, unless these plans are deleted first; it plans the rest anew. With --name, or --budget
(here nnUNetPlans_cpu: a small network, a short training), new plans are written beside the old
ones; they use the same preprocessed data. But where the small patch of a --budget would show less
than half of an image, images are made coarser, and are to be preprocessed anew. With --patch, the
new plans (here nnUNetPlans_80x112x112) have the patch of a publication, and the network that
nnU-Net plans for it; with --budget, too, images are as coarse as that patch needs. With
--architecture, they have another network: of segmentation-models-pytorch
(2d), of MONAI, or Primus (3d).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semi_nnunet.data.layout import preprocessed_dataset, read_plans
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json

# kept in plans, so that planning again measures nothing, and a report says how they were made
ASKED = ("budget", "device", "sizes", "patch", "architecture", "encoder", "weights")
OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")  # of nnU-Net, beside the plans

if TYPE_CHECKING:
    import torch

    from semi_nnunet.planning.plan import PlannedRow


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
        "--device", default="cpu", help="to measure --budget SECONDS on (default: %(default)s)"
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
        "--reset", action="store_true", help="forget what was given or edited before"
    )


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.data.prepare import requested
    from semi_nnunet.discovery.listing import settings_classes
    from semi_nnunet.planning.architecture import plans_of_architecture
    from semi_nnunet.planning.budget import CPU_LENGTH, plans_of_budget
    from semi_nnunet.planning.plan import (
        apply_architecture,
        apply_budget,
        apply_patch,
        parse_assignments,
        plan_semi,
        sizes_for_patch,
        sizes_measured_before,
        sizes_of_budget,
    )
    from semi_nnunet.planning.topology import plans_of_patch
    from semi_nnunet.settings.overrides import given_before, merged
    from semi_nnunet.training.checkpoints import plain

    if args.name:
        require_plans_name(args.name)
    folder = preprocessed_dataset(args.dataset)
    plans, dataset_json = read_plans(folder, args.plans), read_json(folder / "dataset.json")
    given, measured = parse_assignments(args.assignments), dict[str, Any]()
    before = {} if args.reset else given_before(plans)
    sized = plans_of_patch(plans_of_budget(args.plans, args.budget), args.patch)
    name = args.name or plans_of_architecture(sized, args.architecture, args.encoder)
    earlier: dict[str, Any] = {}
    if name != args.plans and (folder / f"{name}.json").is_file():
        earlier = read_plans(folder, name)
        before = before if args.reset else merged(before, given_before(earlier))
    ready = ready_configurations(plans, folder)
    if args.budget or args.patch or args.architecture:
        require_own_network(plans, args.plans)
    if args.budget:
        device, asked = device_of(args.device), {"budget": args.budget, "device": args.device}
        sizes = sizes_measured_before(earlier, plans, asked)
        if sizes is None:
            sizes = sizes_of_budget(plans, dataset_json, args.budget, device)
        else:
            print(f"{name} keeps the sizes measured before (without {name}.json, anew)")
        fitting = sizes_for_patch(plans, sizes, args.patch) if args.patch else sizes
        plans = apply_budget(plans, fitting, name)
        measured = {**asked, "sizes": {key: asdict(size) for key, size in sizes.items()}}
        before = merged(CPU_LENGTH, before)
    if args.patch:
        plans = apply_patch(plans, args.configurations, args.patch)
        measured["patch"] = args.patch
    if args.architecture:
        weights = weights_of(args.weights)
        changed = apply_architecture(
            plans, args.configurations, args.architecture, args.encoder, weights
        )
        measured |= {key: getattr(args, key) for key in ("architecture", "encoder", "weights")}
        without = {key: {"deep_supervision": False} for key in changed}
        before = merged(before, without)
    if args.configurations:
        requested(plans, args.configurations)  # raises if one does not exist
    plans["plans_name"] = name
    trainers = settings_classes()
    given = merged(before, given)
    shown = args.configurations or ready or list(plans["configurations"])
    plans["semi"], rows = plan_semi(plans, dataset_json, folder, trainers, given)
    planned = {"given": given, "semi": plans["semi"], "from": args.plans}
    if name == args.plans:  # planned in place: where they come from stays
        origin = plans.get("semi_planned", {})
        measured = {key: origin[key] for key in ("from", *ASKED) if key in origin} | measured
    plans["semi_planned"] = {**planned, **measured}
    print_rows(rows, shown)
    print_networks(plans, dataset_json, shown)
    write_json(folder / f"{name}.json", plain(plans))
    option = "" if name == "nnUNetPlans" else f"; use it with -p {name}"
    print(f"wrote {folder / name}.json{option}")
    left = set(shown) - set(ready_configurations(plans, folder))
    if coarser := [key for key in ready if key in left]:
        where = f"-d {args.dataset} -p {name} -c {' '.join(coarser)}"
        print(f"next, as its spacing is new: semi_nnunet preprocess {where}")


def require_plans_name(name: str) -> None:
    """Check the name of new plans, of which files and nnU-Net's folders of results get theirs.

    Raises:
        UserError: it could not be told from what stands around it, or is of another file.
    """
    if name in OTHER_FILES or name.startswith("semi_"):
        raise UserError(
            f"--name must not be {name!r}, as {name}.json is another file of the data set. "
            f"Fix: choose another, such as nnUNetPlans_again"
        )
    if "__" in name or name.endswith("_") or set(name) & {"/", "\\"}:
        raise UserError(
            f"--name must have no '__' and no '_' at its end, as results lie in folders "
            f"TRAINER__PLANS__CONFIGURATION, and no path separators; got {name!r}. Fix: choose "
            f"another, such as nnUNetPlans_again"
        )


def require_own_network(plans: dict[str, Any], name: str) -> None:
    """Check that plans have nnU-Net's networks, whose features and strides the rules start from.

    Raises:
        UserError: they have others.
    """
    from semi_nnunet.planning.architecture import adapter_of

    for key, configuration in plans["configurations"].items():
        architecture = configuration.get("architecture", {})
        if network := adapter_of(architecture.get("network_class_name", "")):
            raise UserError(
                f"{key} of {name} has the network {network} already. Fix: start from nnU-Net's "
                f"plans (-p), and give --budget or --patch, and --architecture, together"
            )


def weights_of(text: str) -> str | None:
    """ "imagenet", a file from the root, or None.

    Raises:
        UserError: there is no such file.
    """
    if text in ("none", "imagenet"):
        return None if text == "none" else text
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"--weights {path} does not exist. Fix: correct the path, or imagenet")
    return str(path)


def ready_configurations(plans: dict[str, Any], folder: Path) -> list[str]:
    """Those that are preprocessed."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    return [
        name
        for name in plans["configurations"]
        if (folder / manager.get_configuration(name).data_identifier).is_dir()
    ]


def device_of(name: str) -> torch.device:
    """The device to measure on.

    Raises:
        UserError: there is none of that name.
    """
    import torch

    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used ({reason}). Fix: --device cpu") from error


def print_rows(rows: list[PlannedRow], configurations: list[str] | None) -> None:
    """A line for each setting; one that every trainer has stands once."""
    groups: dict[tuple[str, str], dict[str, PlannedRow]] = {}
    for row in rows:
        if not configurations or row.configuration in configurations:
            groups.setdefault((row.configuration, row.trainer), {})[row.setting] = row
    for (configuration, trainer), settings in groups.items():
        print(f"\n{configuration}, {trainer}")
        for name, row in settings.items():
            print(f"  {name:<36}{row.value!s:<22}{row.reason}")


def print_networks(
    plans: dict[str, Any], dataset_json: dict[str, Any], configurations: list[str]
) -> None:
    """The network, patch and spacing of each configuration.

    Raises:
        UserError: a network cannot see its patch.
    """
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from semi_nnunet.planning.architecture import size_of

    print()
    manager = PlansManager(plans)
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    for name in configurations:
        configuration = manager.get_configuration(name).configuration
        channels = determine_num_input_channels(manager, name, dataset_json)
        parameters, operations = size_of(configuration, channels, heads)
        patch, batch = list(configuration["patch_size"]), configuration["batch_size"]
        spacing = [float(f"{edge:.3g}") for edge in configuration["spacing"]]
        print(
            f"{name}: patch {patch} at {spacing}, batch {batch}; {parameters / 1e6:.1f} million "
            f"parameters, {operations / 1e9:.1f} GFLOPs a patch"
        )
