"""Plans as text for the user: settings with their reasons, and a description of the networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.networks.pretrained import PartFit
from semi_nnunet.planning.architecture import measure_network_size
from semi_nnunet.planning.label_ceiling import LabelCeiling, describe_ceiling
from semi_nnunet.planning.plan import EVERY_TRAINER, PlannedRow
from semi_nnunet.settings.common import TOPICS
from semi_nnunet.util.markdown import table

OTHER_TRAINERS = "every other trainer"
BATCHES = ("labelled_batch_size", "unlabelled_batch_size")
# nnU-Net's own values, which are not shown if a rule keeps them.
NNUNET_VALUES = {
    "epochs": 1000, "steps_per_epoch": 250, "validation_steps_per_epoch": 50, "initial_lr": 1e-2,
    "max_rotation_degrees": 180.0,
}  # fmt: skip


def format_all_settings(
    rows: Sequence[PlannedRow], configurations: Collection[str]
) -> Iterator[str]:
    """Yield a line for each setting of each trainer; settings of every trainer appear once."""
    groups: dict[tuple[str, str], dict[str, PlannedRow]] = {}
    for row in rows:
        if row.configuration in configurations:
            groups.setdefault((row.configuration, row.trainer), {})[row.setting] = row
    for (configuration, trainer), settings in groups.items():
        yield f"\n{configuration}, {trainer}"
        yield from map(format_row, settings.values())


def format_decided_settings(
    rows: Sequence[PlannedRow],
    configurations: Sequence[str],
    trainers: Collection[str] = (),
    batches_of: str | None = None,
) -> Iterator[str]:
    """Yield a line for each setting that was decided for this data set, by topic.

    These are the settings that the user gave, and those for which a rule differs from nnU-Net.
    Settings that are equal in all configurations appear once, before the others.

    Args:
        rows: of :func:`~semi_nnunet.planning.plan.plan_semi`.
        configurations: to be shown.
        trainers: whose own settings are shown, too; of others, only given ones.
        batches_of: a trainer whose numbers of patches are shown if they are its own.
    """
    decided = {
        (row.trainer, row.setting, row.configuration): row
        for row in merge_equal_trainers(rows, {*trainers, batches_of})
        if row.configuration in configurations
        and (is_decided(row, trainers) or (row.trainer == batches_of and row.setting in BATCHES))
    }
    groups: dict[tuple[str, str], list[PlannedRow]] = {}
    for (trainer, setting, configuration), row in decided.items():
        counterparts = [decided.get((trainer, setting, name)) for name in configurations]
        is_common = all(
            other is not None and (other.value, other.reason) == (row.value, row.reason)
            for other in counterparts
        )
        if is_common and configuration != configurations[0]:
            continue
        names = ", ".join(configurations) if is_common else configuration
        groups.setdefault((names, trainer), []).append(row)
    common = ", ".join(configurations)
    ranks = {EVERY_TRAINER: 0, OTHER_TRAINERS: 2}
    for names, trainer in sorted(
        groups, key=lambda group: (ranks.get(group[1], 1), group[0] != common)
    ):
        yield f"\n{names}, {trainer}"
        by_topic = sorted(groups[names, trainer], key=lambda row: topic_rank(row.topic))
        for number, row in enumerate(by_topic):
            if number == 0 or row.topic != by_topic[number - 1].topic:
                yield f" {row.topic}"
            yield format_row(row)


def merge_equal_trainers(
    rows: Sequence[PlannedRow], apart: Collection[str | None]
) -> Iterator[PlannedRow]:
    """Yield one row for all trainers to which the user gave the same value, if others have others.

    Args:
        rows: of all trainers.
        apart: trainers that keep their own rows.
    """
    of_setting: dict[tuple[str, str], list[PlannedRow]] = defaultdict(list)
    for row in rows:
        of_setting[row.configuration, row.setting].append(row)
    for same_setting in of_setting.values():
        equal: dict[tuple[str, str], list[PlannedRow]] = defaultdict(list)
        for row in same_setting:
            if row.trainer in apart or row.trainer == EVERY_TRAINER or not row.is_given:
                yield row
            else:
                equal[repr(row.value), row.reason].append(row)
        for group in equal.values():
            yield replace(group[0], trainer=OTHER_TRAINERS) if len(group) > 1 else group[0]


def is_decided(row: PlannedRow, trainers: Collection[str]) -> bool:
    """Return whether a setting is shown; see :func:`format_decided_settings`."""
    if row.is_given:
        return True
    if row.trainer != EVERY_TRAINER and row.trainer not in trainers:
        return False
    is_method_setting = row.trainer in trainers and row.topic == TOPICS[-1]
    return is_method_setting or (row.is_planned and NNUNET_VALUES.get(row.setting) != row.value)


def topic_rank(topic: str) -> int:
    """Return the position of a topic in the list of topics; unknown ones come last."""
    return TOPICS.index(topic) if topic in TOPICS else len(TOPICS)


def format_row(row: PlannedRow) -> str:
    """Format name, value and reason."""
    return f"  {row.setting:<35} {row.value!s:<21} {row.reason}"


@dataclass(frozen=True)
class NetworkFacts:
    """The network and the images of a configuration.

    >>> print(NetworkFacts("2d", (64, 64), (1.0, 1.0), 12, 5_000_000, 10**9, {}))
    2d: patch [64, 64] at [1.0, 1.0], batch 12; 5.0 million parameters, 1.0 GFLOPs a patch

    Args:
        configuration: such as "2d".
        patch_size: in voxels, in the order of the plans.
        spacing: of the images, in mm.
        batch_size: in patches.
        parameters: number of parameters.
        operations: floating-point operations of one patch.
        label_ceiling: class -> Dice that the labels keep at this spacing.
    """

    configuration: str
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    batch_size: int
    parameters: int
    operations: int
    label_ceiling: Mapping[str, float]

    def __str__(self) -> str:
        spacing = [float(f"{edge:.3g}") for edge in self.spacing]
        network = (
            f"{self.configuration}: patch {list(self.patch_size)} at {spacing}, batch "
            f"{self.batch_size}; {self.parameters / 1e6:.1f} million parameters, "
            f"{self.operations / 1e9:.1f} GFLOPs a patch"
        )
        ceiling = describe_ceiling(self.label_ceiling)
        return f"{network}\n  {ceiling}" if ceiling else network


def format_taken_weights(parts: Sequence[PartFit]) -> Iterator[str]:
    """Yield the lines of a table with the tensors that a trained model provides for each part.

    >>> list(format_taken_weights([PartFit("stem", 4, 4, "")]))[2]
    '| stem    | 4 of 4 |         |'
    """
    rows = [(part.part, f"{part.taken} of {part.tensors}", part.note) for part in parts]
    yield from table([("weights", "taken", "remarks"), *rows]).splitlines()


def describe_networks(
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    configurations: Sequence[str],
    ceiling: LabelCeiling,
) -> list[NetworkFacts]:
    """Describe the network, patch and spacing of each configuration.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        configurations: to be described.
        ceiling: of the data set's labels.

    Raises:
        UserError: a network cannot process its patch.
    """
    manager, facts = PlansManager(dict(plans)), []
    heads = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    for name in configurations:
        configuration = manager.get_configuration(name).configuration
        channels = determine_num_input_channels(manager, name, dict(dataset_json))
        patch, spacing = tuple(configuration["patch_size"]), tuple(configuration["spacing"])
        size, batch_size = (
            measure_network_size(configuration, channels, heads),
            configuration["batch_size"],
        )
        facts.append(NetworkFacts(name, patch, spacing, batch_size, *size, ceiling.at(spacing)))
    return facts
