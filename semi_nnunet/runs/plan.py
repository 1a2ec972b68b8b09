"""Plan: write the semi-supervised settings into the plans, and other networks beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from semi_nnunet.data.layout import preprocessed_dataset, read_plans
from semi_nnunet.data.prepare import requested
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.architecture import plans_of_architecture
from semi_nnunet.planning.budget import (
    CPU_LENGTH,
    KeepsLabels,
    no_other_spacing,
    plans_of_budget,
)
from semi_nnunet.planning.checks import (
    device_of,
    ready_configurations,
    require_own_network,
    require_plans_name,
    weights_of,
)
from semi_nnunet.planning.label_ceiling import label_ceiling
from semi_nnunet.planning.plan import (
    PlannedRow,
    apply_architecture,
    apply_budget,
    apply_patch,
    apply_spacing,
    plan_semi,
    sizes_for_patch,
    sizes_measured_before,
    sizes_of_budget,
)
from semi_nnunet.planning.shown import NetworkFacts, networks_of
from semi_nnunet.planning.topology import plans_of_patch, plans_of_spacing
from semi_nnunet.settings.assignments import assignment_of, parse_assignments
from semi_nnunet.settings.overrides import given_before, merged
from semi_nnunet.training.checkpoints import plain
from semi_nnunet.util.errors import raise_if_any
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.names import unknown

# kept in plans, so that planning again measures nothing, and a report says how they were made
ASKED = ("budget", "device", "sizes", "spacing", "patch", "architecture", "encoder", "weights")


@dataclass(frozen=True)
class Planned:
    """Plans that were written.

    Args:
        name: their identifier.
        path: of the file.
        rows: every setting of every trainer and configuration, with its reason.
        configurations: those to look at: the ones asked for, else those that are preprocessed.
        networks: of these.
        ready: those of them that are preprocessed with these plans.
        coarser: those that were preprocessed, and are to be anew, as their spacing is another.
        keeps_sizes: a budget's sizes are those that were measured before.
    """

    name: str
    path: Path
    rows: list[PlannedRow]
    configurations: tuple[str, ...]
    networks: list[NetworkFacts]
    ready: tuple[str, ...]
    coarser: tuple[str, ...]
    keeps_sizes: bool


@dataclass
class Resized:
    """Plans with other networks, and what that gives before anybody gives anything.

    Args:
        plans: their content.
        asked: how they were made, for :data:`ASKED`.
        length: settings of a budget, which what was given before replaces.
        without: settings that the networks cannot do without.
        keeps_sizes: the sizes are those that were measured before.
    """

    plans: dict[str, Any]
    asked: dict[str, Any] = field(default_factory=dict)
    length: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, Any] = field(default_factory=dict)
    keeps_sizes: bool = False


def plan(
    dataset: str,
    *,
    plans: str = "nnUNetPlans",
    name: str | None = None,
    configurations: Sequence[str] | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    budget: str | None = None,
    patch: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    architecture: str | None = None,
    encoder: str = "resnet34",
    weights: str = "none",
    device: str = "cpu",
    reset: bool = False,
    trainers: Sequence[str] = (),
) -> Planned:
    """Write the semi-supervised settings into the plans, each with its reason.

    Planning again keeps what was given before or edited by hand, and plans the rest anew.

    Args:
        dataset: number or name; it is preprocessed.
        plans: identifier of the plans to start from.
        name: of new plans beside them; None: the same, or one that tells budget, patch and network.
        configurations: for a patch, spacing or network, only these; None: those that fit.
        settings: setting -> value, where a setting is named KEY, CONFIG.KEY, TRAINER.KEY or
            TRAINER.CONFIG.KEY; or texts such as "epochs=300".
        budget: "cpu", or seconds per supervised step as a text, that network, patch, batch and
            length are shrunk to; None: they stay.
        patch: edges in voxels, in the order of the plans; None: the planned one.
        spacing: of the images, in mm, in the order of the plans; None: the planned one.
        architecture: name of another network, such as "smp.Unet"; None: nnU-Net's.
        encoder: of segmentation-models-pytorch's networks.
        weights: of that encoder before the training: "imagenet", a file, or "none".
        device: to measure a budget of seconds on.
        reset: forget what was given or edited before.
        trainers: names to check: those whose settings are looked at.

    Returns:
        The plans, and every setting with its reason.

    Raises:
        UserError: a name, setting, patch or network does not exist, or does not fit.
    """
    if name:
        require_plans_name(name)
    folder, classes = preprocessed_dataset(dataset), settings_classes()
    start, description = read_plans(folder, plans), read_json(folder / "dataset.json")
    if isinstance(settings, Mapping):
        settings = [assignment_of(key, value) for key, value in settings.items()]
    given = parse_assignments(settings)
    raise_if_any("There are no such settings:", unknown("trainer", trainers, classes))
    sized = plans_of_patch(plans_of_spacing(plans_of_budget(plans, budget), spacing), patch)
    name = name or plans_of_architecture(sized, architecture, encoder)
    is_beside = name != plans and (folder / f"{name}.json").is_file()
    earlier = read_plans(folder, name) if is_beside else {}
    before: dict[str, Any] = {}
    if not reset:
        before = given_before(start)
        before = merged(before, given_before(earlier)) if is_beside else before
    was_ready = ready_configurations(start, folder)
    if budget or spacing or patch or architecture:
        require_own_network(start, plans)
    resized, ceiling = Resized(start), label_ceiling(start, description, folder)
    keeps_labels = ceiling.is_kept_at
    if spacing:
        resized.plans = apply_spacing(resized.plans, configurations, spacing, name)
        resized.asked["spacing"] = list(spacing)
        keeps_labels = no_other_spacing
    if budget:
        shrink(resized, description, earlier, name, budget, device, patch, keeps_labels)
    if patch:
        resized.plans = apply_patch(resized.plans, configurations, patch)
        resized.asked["patch"] = list(patch)
    if architecture:
        replace_network(resized, configurations, architecture, encoder, weights)
    content = resized.plans
    if configurations:
        requested(content, configurations)  # raises if one does not exist
    content["plans_name"] = name
    given = merged(merged(merged(resized.length, before), resized.without), given)
    shown = tuple(configurations or was_ready or content["configurations"])
    content["semi"], rows = plan_semi(content, description, folder, classes, given)
    planned = {"given": given, "semi": content["semi"], "from": plans}
    if name == plans:  # planned in place: where they come from stays
        origin = content.get("semi_planned", {})
        planned |= {key: origin[key] for key in ("from", *ASKED) if key in origin}
    content["semi_planned"] = planned | resized.asked
    networks = networks_of(content, description, shown, ceiling)
    path = folder / f"{name}.json"
    write_json(path, plain(content))
    ready = ready_configurations(content, folder)
    return Planned(
        name=name,
        path=path,
        rows=rows,
        configurations=shown,
        networks=networks,
        ready=tuple(key for key in shown if key in ready),
        coarser=tuple(key for key in was_ready if key in shown and key not in ready),
        keeps_sizes=resized.keeps_sizes,
    )


def shrink(
    resized: Resized,
    description: Mapping[str, Any],
    earlier: Mapping[str, Any],
    name: str,
    budget: str,
    device: str,
    patch: Sequence[int] | None,
    keeps_labels: KeepsLabels,
) -> None:
    """Make networks, inputs and length as small as a budget wants them.

    Raises:
        UserError: the budget or the device is none.
    """
    place, asked = device_of(device), {"budget": budget, "device": device}
    sizes = sizes_measured_before(earlier, resized.plans, asked)
    resized.keeps_sizes = sizes is not None
    if sizes is None:
        sizes = sizes_of_budget(resized.plans, description, budget, place)
    fitting = sizes_for_patch(resized.plans, sizes, patch) if patch else sizes
    resized.plans = apply_budget(resized.plans, fitting, name, keeps_labels)
    resized.asked |= {**asked, "sizes": {key: asdict(size) for key, size in sizes.items()}}
    resized.length = CPU_LENGTH


def replace_network(
    resized: Resized,
    configurations: Sequence[str] | None,
    architecture: str,
    encoder: str,
    weights: str,
) -> None:
    """Put another network into plans, which has no deep supervision.

    Raises:
        UserError: there is no such network or file of weights, or it fits no configuration.
    """
    changed = apply_architecture(
        resized.plans, configurations, architecture, encoder, weights_of(weights)
    )
    resized.asked |= {"architecture": architecture, "encoder": encoder, "weights": weights}
    resized.without = {key: {"deep_supervision": False} for key in changed}
