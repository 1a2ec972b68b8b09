"""Find what takes part in a training without being able to teach anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.raw.folds import Fold, load_folds
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    SPLITS_FILE,
    UNLABELLED_IMAGES,
    get_unlabelled_folder,
)
from semi_nnunet.raw.lesion_rules import LESIONS_KEY
from semi_nnunet.raw.pieces import ONE_PIECE_KEY
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.schema import METHOD
from semi_nnunet.util.errors import Problem, Suggestion
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import list_first

Entries = Mapping[str, ManifestEntry]  # preprocessed cases
LABELS = "labelsTr"
FEWEST_LABELS = 3  # that may suggest a rule for all images
SCRIBBLED = 0.5  # share of the voxels of annotated slices that are ignored


def collect_idle_inputs(
    preprocessed: Path,
    plans: Mapping[str, Any],
    configuration: str,
    settings: Mapping[str, SemiSettings],
    fold: str | None = None,
) -> list[Problem]:
    """Return a problem for each label, class and stream of images that teaches nothing.

    The training works nevertheless, so these are warnings.

    Args:
        preprocessed: folder of the data set.
        plans, configuration: of which the cases are preprocessed.
        settings: trainer -> its settings, of trainers that use unlabelled images.
        fold: which is trained; None: all.
    """
    description = read_json(preprocessed / DATASET_JSON)
    identifier = PlansManager(dict(plans)).get_configuration(configuration).data_identifier
    labelled = Manifest(preprocessed / identifier).present()
    unlabelled = Manifest(get_unlabelled_folder(preprocessed, identifier)).present()
    folds = {str(number): content for number, content in enumerate(load_folds(preprocessed))}
    folds = {name: content for name, content in folds.items() if fold in (None, name)}
    problems = [*find_idle_labels(labelled, description["labels"], folds)]
    if any(not values.crf_weight for values in settings.values()):
        problems += find_scribbles(labelled)
    problems += find_single_pieces(labelled, description)
    problems += find_idle_images(unlabelled)
    for name, values in settings.items():
        problems += find_idle_settings(name, values)
    return problems


def find_idle_labels(
    labelled: Entries, labels: Mapping[str, Any], folds: Mapping[str, Fold]
) -> Iterator[Problem]:
    """Yield a problem if no labelled case, or none of a fold's training, shows a class.

    Cases that an earlier version preprocessed are left out, and of regions only the background is
    known.
    """
    if ignored := [*find_ignored_labels(labelled)]:
        yield from ignored
        return
    if empty := [name for name, entry in labelled.items() if is_ignored(entry)]:
        message = (
            f"every voxel of {list_first(empty)} has nnU-Net's ignore label and teaches no class"
        )
        fix = f"annotate some voxels, or move its image to {UNLABELLED_IMAGES}"
        yield Problem(LABELS, message, fix)
    known = {
        name: entry
        for name, entry in labelled.items()
        if "classes" in entry.facts and not is_ignored(entry)
    }
    if known and all(entry.facts.get("foreground_slices") == 0 for entry in known.values()):
        message = f"all {len(known)} labels are 0 in every annotated voxel: a training learns "
        message += "to find nothing"
        yield Problem(LABELS, message, "correct them, then preprocess again")
        return
    if not known or any(isinstance(value, (list, tuple)) for value in labels.values()):
        return
    classes = {name: value for name, value in labels.items() if value and name != "ignore"}
    shown = {
        name: {case for case, entry in known.items() if shows_class(entry, str(value))}
        for name, value in classes.items()
    }
    if absent := [name for name, cases in shown.items() if not cases]:
        message = f"no case shows {list_first(absent)}"
        fix = f"label some, or remove the class from {DATASET_JSON}"
        yield Problem(LABELS, f"{message}, which cannot be learned", fix)
    for number, fold in folds.items():
        training, validation = ({*fold[side]} & {*known} for side in ("train", "val"))
        unseen = [
            name
            for name, cases in shown.items()
            if training and cases & validation and not cases & training
        ]
        if unseen:
            message = f"fold {number} validates {list_first(unseen)}, which its training never sees"
            yield Problem(SPLITS_FILE, message, "other folds, or more labelled cases")


def shows_class(entry: ManifestEntry, value: str) -> bool:
    """Return whether a label has a class; a few voxels in entries of earlier versions do not."""
    return value in entry.facts["classes"] or value in entry.facts.get("few_voxels", ())


def find_ignored_labels(labelled: Entries) -> Iterator[Problem]:
    """Yield a problem if all voxels of all labels are ignored: no training can learn from them."""
    if labelled and all(map(is_ignored, labelled.values())):
        count = f"all {len(labelled)} labels" if len(labelled) > 1 else "the only label"
        message = f"every voxel of {count} has nnU-Net's ignore label, so no voxel teaches a class"
        fix = "annotate some voxels of each class, or correct the value of 'ignore' in "
        yield Problem(LABELS, message, f"{fix}{DATASET_JSON}, then preprocess again")


def is_ignored(entry: ManifestEntry) -> bool:
    """Return whether all voxels of a label are ignored; cases of earlier versions do not say."""
    return entry.facts.get("ignored") == 1


def find_scribbles(labelled: Entries) -> Iterator[Problem]:
    """Yield a problem if most voxels of annotated slices are ignored, as between scribbles."""
    shares = [
        entry.facts["ignored_in_slices"]
        for entry in labelled.values()
        if "ignored_in_slices" in entry.facts and not is_ignored(entry)
    ]
    if shares and (share := float(np.median(shares))) > SCRIBBLED:
        message = (
            f"{share:.0%} of the voxels of annotated slices are ignored, as between scribbles: "
            "nothing says where a class ends, and unlabelled images have not helped "
            "(docs/sparse_labels.md)"
        )
        yield Suggestion(LABELS, message, "try semi_nnunet plan --set crf_weight=0.03")


def find_single_pieces(labelled: Entries, description: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a suggestion if every label shows its foreground in one connected piece.

    Cases that an earlier version preprocessed, and sparse labels, are left out.

    Args:
        labelled: the preprocessed labelled cases.
        description: content of dataset.json, which may say already how many pieces to expect.
    """
    if ONE_PIECE_KEY in description or LESIONS_KEY in description:
        return
    pieces = [entry.facts["pieces"] for entry in labelled.values() if "pieces" in entry.facts]
    if len(pieces) >= FEWEST_LABELS and {*pieces} == {1}:
        message = f"each of the {len(pieces)} labels shows its foreground in one piece"
        fix = (
            f'if that holds for every image, try "{ONE_PIECE_KEY}": true in {DATASET_JSON}, which '
            "removes other pieces from predictions (docs/prediction.md); false ends this note"
        )
        yield Suggestion(LABELS, message, fix)


def find_idle_images(unlabelled: Entries) -> Iterator[Problem]:
    """Yield a problem if all unlabelled images are one, or if images show one grey only."""
    contents = {entry.source.partition("-")[0] for entry in unlabelled.values()}
    if len(unlabelled) > 1 and len(contents) == 1:
        message = f"all {len(unlabelled)} images have the same voxels"
        yield Problem(UNLABELLED_IMAGES, message, "put others there, then preprocess again")
    constant = [
        name
        for name, entry in unlabelled.items()
        if (channels := entry.facts.get("quantiles"))
        and all(len({*quantiles}) == 1 for quantiles in channels)
    ]
    if constant:
        message = f"{len(constant)} images show the same grey nearly everywhere"
        fix = "remove them, then preprocess again"
        yield Problem(UNLABELLED_IMAGES, f"{message}: {list_first(constant)}", fix)


def find_idle_settings(trainer: str, settings: SemiSettings) -> Iterator[Problem]:
    """Yield a problem for settings with which unlabelled images never count."""
    steps, start = settings.total_steps, settings.unlabelled_start_steps
    baseline = "or train the baseline, which is faster"
    if settings.unlabelled_weight == 0:
        message = "unlabelled images have no weight: unlabelled_weight is 0"
        yield Problem(trainer, message, f"semi_nnunet plan --set unlabelled_weight=1, {baseline}")
    elif start >= steps and not settings.follow_reliability:
        message = f"ends after {steps} steps, before unlabelled images count: "
        message += f"unlabelled_start_steps is {start}"
        yield Problem(trainer, message, "a smaller number, or more epochs (semi_nnunet plan --set)")
    default = type(settings).unlabelled_gradient_limit_at_end
    at_end = settings.unlabelled_gradient_limit_at_end
    if at_end not in (None, default) and not settings.unlabelled_gradient_limit:
        message = f"unlabelled_gradient_limit_at_end is {at_end} and has no effect, because "
        message += "unlabelled_gradient_limit is 0 (no limit)"
        yield Problem(trainer, message, "semi_nnunet plan --set unlabelled_gradient_limit=2")
    common = {field.name for field in fields(SemiSettings)}
    weights = [
        field.name
        for field in fields(settings)
        if field.name.endswith("_weight")
        and field.name not in common
        and field.metadata["scope"] == METHOD
    ]
    if weights and not any(getattr(settings, name) for name in weights):
        message = f"learns nothing from unlabelled images: {' and '.join(weights)} must not be 0"
        fix = f"semi_nnunet plan --set {trainer}.{weights[0]}=1, {baseline}"
        yield Problem(trainer, message, fix)
