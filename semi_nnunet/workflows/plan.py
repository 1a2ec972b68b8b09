"""Plan: write the semi-supervised settings, and other networks, into plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from semi_nnunet.deploy.shapes import read_model_shape
from semi_nnunet.discovery.names import DEFAULT_PLANS
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.networks.pretrained import PartFit, summarise_fits
from semi_nnunet.planning.architecture import name_architecture_plans
from semi_nnunet.planning.budget import (
    CPU_LENGTH,
    KeepsLabels,
    name_budget_plans,
    reject_other_spacings,
)
from semi_nnunet.planning.checks import (
    list_preprocessed_configurations,
    parse_device,
    parse_encoder_weights,
    require_own_network,
    require_plans_name,
)
from semi_nnunet.planning.label_ceiling import load_label_ceiling
from semi_nnunet.planning.likeness import (
    ModelShape,
    apply_shape,
    choose_shaped_configuration,
    fit_weights,
    name_like_plans,
    require_no_other_shape,
)
from semi_nnunet.planning.plan import (
    EVERY_TRAINER,
    PlannedRow,
    apply_architecture,
    apply_budget,
    apply_patch,
    apply_spacing,
    find_budget_sizes,
    plan_semi,
    replace_patch_sizes,
    reuse_measured_sizes,
)
from semi_nnunet.planning.shown import NetworkFacts, describe_networks
from semi_nnunet.planning.topology import name_patch_plans, name_spacing_plans
from semi_nnunet.preprocessing.planning import describe_origin, select_configurations
from semi_nnunet.raw.layout import DATASET_JSON, get_preprocessed_dataset
from semi_nnunet.raw.plans import held_plans, read_plans
from semi_nnunet.settings.assignments import format_assignment, parse_assignments
from semi_nnunet.settings.overrides import collect_user_layers, merge_layers
from semi_nnunet.settings.rules import POOL
from semi_nnunet.training.checkpoints import to_plain_values
from semi_nnunet.training.initial_weights import find_named_checkpoint
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.util.names import unknown
from semi_nnunet.verify.domain_distance import DomainFacts, load_domain_facts

# stored in plans, so that planning again measures nothing, and a report can show them
PLANNING_OPTIONS = (
    "budget", "device", "sizes", "spacing", "patch", "architecture", "encoder", "weights", "like",
)  # fmt: skip


KEPT = "kept from an earlier --set (--reset forgets them)"  # the reason of a setting


@dataclass(frozen=True)
class WrittenPlans:
    """The plans that :func:`plan_dataset` wrote.

    Args:
        name: their identifier.
        path: of the file.
        rows: every setting of every trainer and configuration, with its reason.
        configurations: the requested ones, else the preprocessed ones.
        networks: of these configurations.
        ready: the configurations that are preprocessed with these plans.
        coarser: the preprocessed configurations whose spacing has changed, so that they must be
            preprocessed again.
        keeps_sizes: whether a budget uses sizes that were measured earlier.
        taken: parts of the network with the tensors that a model provides (``like``).
        domains: of the data set, if its ``dataset.json`` names them.
    """

    name: str
    path: Path
    rows: list[PlannedRow]
    configurations: tuple[str, ...]
    networks: list[NetworkFacts]
    ready: tuple[str, ...]
    coarser: tuple[str, ...]
    keeps_sizes: bool
    taken: tuple[PartFit, ...] = ()
    domains: tuple[DomainFacts, ...] = ()

    def find_value(self, trainer: str, configuration: str, setting: str) -> Any:
        """Return the value of a setting of a trainer and configuration."""
        return next(
            row.value
            for row in self.rows
            if (row.configuration, row.setting) == (configuration, setting)
            and row.trainer in (trainer, EVERY_TRAINER)
        )


@dataclass
class PlansDraft:
    """Plans under construction, with the settings that their networks imply.

    Args:
        plans: their content.
        options: of :data:`PLANNING_OPTIONS`, how they were made.
        length: settings of a budget; settings given earlier override them.
        required: settings that the networks depend on; they override settings given earlier.
        keeps_sizes: whether a budget uses sizes that were measured earlier.
        taken: parts of the network with the tensors that a model provides.
    """

    plans: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    length: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)
    keeps_sizes: bool = False
    taken: tuple[PartFit, ...] = ()


def locate_pretrained(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return layers of settings in which the file of ``pretrained`` has an absolute path.

    Raises:
        UserError: there is no such file.
    """
    located = dict[str, Any](layers)
    for key, value in layers.items():
        if isinstance(value, Mapping):
            located[key] = locate_pretrained(value)
        elif key == "pretrained" and isinstance(value, str) and value != POOL:
            find_named_checkpoint(value)
            located[key] = str(Path(value).expanduser().absolute())
    return located


def plan_dataset(
    dataset: str,
    *,
    plans: str = DEFAULT_PLANS,
    name: str | None = None,
    configurations: Sequence[str] | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    budget: str | None = None,
    patch: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    architecture: str | None = None,
    encoder: str = "resnet34",
    weights: str = "none",
    like: str | None = None,
    device: str = "cpu",
    reset: bool = False,
    trainers: Sequence[str] = (),
) -> WrittenPlans:
    """Write the semi-supervised settings into the plans: see :func:`semi_nnunet.plan`."""
    if name:
        require_plans_name(name)
    folder, classes = get_preprocessed_dataset(dataset), settings_classes()
    if isinstance(settings, Mapping):
        settings = [format_assignment(key, value) for key, value in settings.items()]
    assigned = locate_pretrained(parse_assignments(settings))
    raise_if_any("There are no such settings:", unknown("trainer", trainers, classes))
    sized = name_patch_plans(name_spacing_plans(name_budget_plans(plans, budget), spacing), patch)
    shape = None
    if like:
        options = {"budget": budget, "patch": patch, "spacing": spacing}
        require_no_other_shape({**options, "architecture": architecture})
        shape = read_model_shape(like)
        sized = name_like_plans(plans, shape.dataset)
    name = name or name_architecture_plans(sized, architecture, encoder)
    read_plans(folder, plans)  # raises before a lock makes the folder
    with held_plans(folder, name):  # else one of two calls at once is lost
        start, description = read_plans(folder, plans), read_json(folder / DATASET_JSON)
        exists = name != plans and (folder / f"{name}.json").is_file()
        earlier = read_plans(folder, name) if exists else {}
        inherited: dict[str, Any] = {}
        if not reset:
            inherited = collect_user_layers(start)
            inherited = (
                merge_layers(inherited, collect_user_layers(earlier)) if exists else inherited
            )
        was_ready = list_preprocessed_configurations(start, folder)
        if budget or spacing or patch or architecture:
            require_own_network(start, plans)
        draft, ceiling = PlansDraft(start), load_label_ceiling(start, description, folder)
        if shape:
            require_same_model(earlier, shape.path, name)
            shape_draft(draft, description, shape, configurations, name)
        keeps_labels = ceiling.is_kept_at
        if spacing:
            draft.plans = apply_spacing(draft.plans, configurations, spacing, name)
            draft.options["spacing"] = list(spacing)
            keeps_labels = reject_other_spacings
        if budget:
            shrink_draft(draft, description, earlier, name, budget, device, patch, keeps_labels)
        if patch:
            draft.plans = apply_patch(draft.plans, configurations, patch)
            draft.options["patch"] = list(patch)
        if architecture:
            replace_draft_network(draft, configurations, architecture, encoder, weights)
        content = draft.plans
        if configurations:
            select_configurations(content, configurations)  # raises if one does not exist
        content["plans_name"] = name
        requested = merge_layers(draft.required, assigned)
        assigned = merge_layers(merge_layers(draft.length, inherited), requested)
        was_ready = [key for key in was_ready if key in content["configurations"]]
        shown = tuple(configurations or was_ready or content["configurations"])
        content["semi"], rows = plan_semi(content, description, folder, classes, assigned, start)
        rows = [mark_kept(row, assigned, inherited, requested) for row in rows]
        planned = {"given": assigned, "semi": content["semi"], "from": plans}
        planned |= describe_origin(folder)
        if name == plans:  # planned in place: they keep their origin
            origin, kept = content.get("semi_planned", {}), ("from", "fingerprint", "description")
            planned |= {key: origin[key] for key in (*kept, *PLANNING_OPTIONS) if key in origin}
        content["semi_planned"] = planned | draft.options
        networks = describe_networks(content, description, shown, ceiling)
        path = folder / f"{name}.json"
        write_json(path, to_plain_values(content))
        ready = list_preprocessed_configurations(content, folder)
        return WrittenPlans(
            name=name,
            path=path,
            rows=rows,
            configurations=shown,
            networks=networks,
            ready=tuple(key for key in shown if key in ready),
            coarser=tuple(key for key in was_ready if key in shown and key not in ready),
            keeps_sizes=draft.keeps_sizes,
            taken=draft.taken,
            domains=tuple(load_domain_facts(folder)),
        )


def mark_kept(
    row: PlannedRow,
    layers: Mapping[str, Any],
    earlier: Mapping[str, Any],
    requested: Mapping[str, Any],
) -> PlannedRow:
    """Return the row of a setting, with its origin as the reason if an earlier call gave it.

    Args:
        row: of the new plans.
        layers: all that was given for these plans.
        earlier, requested: its parts, given by earlier calls and by this one.
    """
    for path in ((row.trainer, row.configuration), (row.trainer,), (row.configuration,), ()):
        if row.setting in get_layer(layers, path):  # the innermost layer decides
            is_kept = row.setting in get_layer(earlier, path)
            is_kept = is_kept and row.setting not in get_layer(requested, path)
            return replace(row, reason=KEPT) if is_kept else row
    return row


def get_layer(layers: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """Return the layer of a trainer, a configuration or both; {} if it is missing.

    >>> get_layer({"2d": {"epochs": 5}}, ("2d",)), get_layer({"seed": 1}, ("2d",))
    ({'epochs': 5}, {})
    """
    for key in path:
        layers = layers.get(key, {})
    return layers


def require_same_model(earlier: Mapping[str, Any], path: Path, name: str) -> None:
    """Raise a UserError if existing plans of the same name are not shaped after the same model.

    Args:
        earlier: the existing plans; {} if there are none.
        path: checkpoint of the model.
        name: of the plans.
    """
    previous = earlier.get("semi_planned", {}).get("like")
    if earlier and previous != str(path):
        origin = "not after a model" if previous is None else f"after {previous}"
        raise UserError(
            f"the plans {name} exist and are shaped {origin}", fix="give --new-plans another name"
        )


def shape_draft(
    draft: PlansDraft,
    description: Mapping[str, Any],
    shape: ModelShape,
    configurations: Sequence[str] | None,
    name: str,
) -> None:
    """Keep one configuration, shaped after a trained model, and start from the model's weights.

    Raises:
        UserError: the model is of images of another dimension, or provides too few weights.
    """
    key = choose_shaped_configuration(draft.plans, shape, configurations)
    draft.plans = apply_shape(draft.plans, shape, key, name)
    fits = fit_weights(draft.plans, description, shape, key)
    draft.options["like"] = str(shape.path)
    draft.taken = tuple(summarise_fits(fits))
    required: dict[str, Any] = {"pretrained": str(shape.path)}
    if shape.is_of_adapter:
        required["deep_supervision"] = False
    draft.required = {key: required}


def shrink_draft(
    draft: PlansDraft,
    description: Mapping[str, Any],
    earlier: Mapping[str, Any],
    name: str,
    budget: str,
    device: str,
    patch: Sequence[int] | None,
    keeps_labels: KeepsLabels,
) -> None:
    """Shrink networks, inputs and length to a budget.

    Raises:
        UserError: the budget or the device is invalid.
    """
    torch_device, options = parse_device(device), {"budget": budget, "device": device}
    sizes = reuse_measured_sizes(earlier, draft.plans, options)
    draft.keeps_sizes = sizes is not None
    if sizes is None:
        sizes = find_budget_sizes(draft.plans, description, budget, torch_device)
    fitting = replace_patch_sizes(draft.plans, sizes, patch) if patch else sizes
    draft.plans = apply_budget(draft.plans, fitting, name, keeps_labels)
    draft.options |= {**options, "sizes": {key: asdict(size) for key, size in sizes.items()}}
    draft.length = CPU_LENGTH


def replace_draft_network(
    draft: PlansDraft,
    configurations: Sequence[str] | None,
    architecture: str,
    encoder: str,
    weights: str,
) -> None:
    """Replace the network, and turn deep supervision off, which other networks lack.

    Raises:
        UserError: the network or its file of weights does not exist, or fits no configuration.
    """
    changed = apply_architecture(
        draft.plans, configurations, architecture, encoder, parse_encoder_weights(weights)
    )
    draft.options |= {"architecture": architecture, "encoder": encoder, "weights": weights}
    draft.required = {key: {"deep_supervision": False} for key in changed}
