"""Plans for people: their settings with the reasons, and the networks that they describe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.planning.architecture import size_of
from semi_nnunet.planning.label_ceiling import LabelCeiling, describe_ceiling
from semi_nnunet.planning.plan import EVERY_TRAINER, PlannedRow
from semi_nnunet.settings.common import TOPICS

# What nnU-Net does anyway, where a rule leaves it at that.
NNUNET_VALUES = {
    "epochs": 1000, "steps_per_epoch": 250, "validation_steps_per_epoch": 50, "initial_lr": 1e-2,
    "max_rotation_degrees": 180.0,
}  # fmt: skip


def every_setting(rows: Sequence[PlannedRow], configurations: Collection[str]) -> Iterator[str]:
    """A line for each setting of each trainer; one that every trainer has stands once."""
    groups: dict[tuple[str, str], dict[str, PlannedRow]] = {}
    for row in rows:
        if row.configuration in configurations:
            groups.setdefault((row.configuration, row.trainer), {})[row.setting] = row
    for (configuration, trainer), settings in groups.items():
        yield f"\n{configuration}, {trainer}"
        yield from map(format_row, settings.values())


def decided_settings(
    rows: Sequence[PlannedRow], configurations: Sequence[str], trainers: Collection[str] = ()
) -> Iterator[str]:
    """A line for each setting that was decided for this data set, by topic; each stands once.

    That is what a person gave, and what a rule computes and nnU-Net would not do anyway. What is
    the same in all configurations stands before what is not.

    Args:
        rows: of :func:`~semi_nnunet.planning.plan.plan_semi`.
        configurations: of which ones.
        trainers: whose own settings are told, too; of others, only what a person gave.
    """
    chosen = {
        (row.trainer, row.setting, row.configuration): row
        for row in rows
        if row.configuration in configurations and is_decided(row, trainers)
    }
    groups: dict[tuple[str, str], list[PlannedRow]] = {}
    for (trainer, setting, configuration), row in chosen.items():
        alike = [chosen.get((trainer, setting, other)) for other in configurations]
        is_common = all(
            one is not None and (one.value, one.reason) == (row.value, row.reason) for one in alike
        )
        if is_common and configuration != configurations[0]:
            continue
        where = ", ".join(configurations) if is_common else configuration
        groups.setdefault((where, trainer), []).append(row)
    common = ", ".join(configurations)
    for where, trainer in sorted(
        groups, key=lambda key: (key[1] != EVERY_TRAINER, key[0] != common)
    ):
        yield f"\n{where}, {trainer}"
        by_topic = sorted(groups[where, trainer], key=lambda row: topic_rank(row.topic))
        for number, row in enumerate(by_topic):
            if number == 0 or row.topic != by_topic[number - 1].topic:
                yield f" {row.topic}"
            yield format_row(row)


def is_decided(row: PlannedRow, trainers: Collection[str]) -> bool:
    """Whether a setting is told; see :func:`decided_settings`."""
    if row.is_given:
        return True
    if row.trainer != EVERY_TRAINER and row.trainer not in trainers:
        return False
    own = row.trainer in trainers and row.topic == TOPICS[-1]  # of a method that was named
    return own or (row.is_planned and NNUNET_VALUES.get(row.setting) != row.value)


def topic_rank(topic: str) -> int:
    """In the order in which topics are listed; others come last."""
    return TOPICS.index(topic) if topic in TOPICS else len(TOPICS)


def format_row(row: PlannedRow) -> str:
    """Name, value and reason."""
    return f"  {row.setting:<36}{row.value!s:<22}{row.reason}"


@dataclass(frozen=True)
class NetworkFacts:
    """The network of a configuration, and what it sees.

    Args:
        configuration: such as "2d".
        patch_size: in voxels, in the order of the plans.
        spacing: of the images, in mm.
        batch_size: patches.
        parameters: how many.
        operations: floating-point operations of one patch.
        label_ceiling: class -> Dice that its labels keep at this spacing.
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


def networks_of(
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    configurations: Sequence[str],
    ceiling: LabelCeiling,
) -> list[NetworkFacts]:
    """The network, patch and spacing of each configuration.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        configurations: which ones.
        ceiling: of the data set's labels.

    Raises:
        UserError: a network cannot see its patch.
    """
    manager, found = PlansManager(dict(plans)), []
    heads = manager.get_label_manager(dict(dataset_json)).num_segmentation_heads
    for name in configurations:
        one = manager.get_configuration(name).configuration
        channels = determine_num_input_channels(manager, name, dict(dataset_json))
        patch, spacing = tuple(one["patch_size"]), tuple(one["spacing"])
        size = size_of(one, channels, heads)
        kept = ceiling.at(spacing)
        found.append(NetworkFacts(name, patch, spacing, one["batch_size"], *size, kept))
    return found
