"""Only the largest connected piece of each prediction: what it would change, and keeping it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunetv2.postprocessing.remove_connected_components import load_postprocess_save
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.evaluation.pieces import (
    ADVICE,
    DICE,
    ONLY_LARGEST,
    REFERENCES,
    SCATTERED,
    count_cases,
    describe_contradiction,
    improves,
    keep_largest_component,
)
from semi_nnunet.evaluation.points import format_mean
from semi_nnunet.evaluation.tables import METRICS_JSON, average_defined
from semi_nnunet.evaluation.values import Model
from semi_nnunet.raw.description import list_cases
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.raw.pieces import ONE_PIECE_KEY, is_one_piece
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import list_metric_tables
from semi_nnunet.util.files import optional_json
from semi_nnunet.util.method_names import name_method


def describe_pieces(jobs: Iterable[Job], subset: str) -> list[str]:
    """Suggest "one_piece" if it would raise the mean Dice of a model.

    Args:
        jobs: whose measures are compared.
        subset: "validation" or "test".

    Returns:
        No sentence if a reference has several pieces. Tables in which pieces were not counted, such
        as those of earlier versions, are left out.
    """
    measured, has_gain = defaultdict[Model, list[dict[str, Any]]](list), False
    for model, _, _, table in list_metric_tables(jobs, subset):
        content = optional_json(table.with_name(METRICS_JSON))
        if pieces := content.get("pieces"):
            if pieces == ONLY_LARGEST:
                sentence = f'"{ONE_PIECE_KEY}" in {DATASET_JSON}: {ONLY_LARGEST}.'
                return [*filter(None, [sentence, describe_contradiction(content)])]
            if REFERENCES in pieces:
                return []
            measured[model].append(content)
    rows = list[str]()
    for model, contents in measured.items():
        cases = sum(map(count_cases, contents))
        scattered = sum(content["pieces"][SCATTERED] for content in contents)
        whole, largest = (
            average_defined([value for value in values if value is not None])
            for values in (
                [content["foreground_mean"]["dice"] for content in contents],
                [content["pieces"][DICE] for content in contents],
            )
        )
        has_gain |= improves(whole, largest)
        rows.append(
            f"{name_method(model.trainer)} {model.configuration}: {scattered} of {cases} in "
            f"several pieces, Dice {format_mean(whole, 'dice')}, with only the largest piece "
            f"{format_mean(largest, 'dice')}"
        )
    if not has_gain:
        return []
    return [
        f"Each reference of the {subset} cases shows its foreground in one piece; predictions: "
        f"{'; '.join(rows)}. {ADVICE.format(f'{DATASET_JSON} in nnUNet_raw')}"
    ]


def keep_largest_pieces(folder: Path, model: TrainedModel) -> None:
    """Rewrite the predictions in a folder, if the model's dataset.json says "one_piece"."""
    if not is_one_piece(model.dataset_json):
        return
    plans, ending = PlansManager(model.plans), model.dataset_json["file_ending"]
    labels = plans.get_label_manager(model.dataset_json).foreground_labels
    for case in list_cases(folder, ending):
        file = str(folder / f"{case}{ending}")
        load_postprocess_save(
            file, file, plans.image_reader_writer_class(), [keep_largest_component],
            [{"foreground": labels}],
        )  # fmt: skip
