"""Predictions that a folder holds already: what they were made from, and which of them can stay."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.inference.model import ImagePredictor
from semi_nnunet.preprocessing.manifest import WrittenLabels
from semi_nnunet.raw.description import list_cases, without_own_keys
from semi_nnunet.raw.layout import DATASET_JSON, EARLIER_RECORD, MODEL, NETWORK, PREDICTED_FROM
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import file_in_the_way, optional_json
from semi_nnunet.util.names import list_first
from semi_nnunet.util.provenance import (
    FileRecord,
    Inputs,
    Records,
    compare_inputs,
    read_record,
    write_record,
)
from semi_nnunet.verify.file_bytes import require_complete_image

OPTIONS = "options"  # in a record of predictions
COARSE, FIRST_STAGE = "the coarse network", "first stage of "  # the same
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierPredictions:
    """The predictions that a folder holds.

    Args:
        folder: of the predictions.
        cases: case -> its images, of the present ones.
        ending: of the predictions.
        record: what the predictions were made from.
        edited: case -> its file, for labels that were corrected after their prediction.
    """

    folder: Path
    cases: Mapping[str, Sequence[str]]
    ending: str
    record: Records
    edited: dict[str, Path]

    @classmethod
    def of_folder(
        cls, folder: Path, cases: Mapping[str, Sequence[str]], ending: str
    ) -> EarlierPredictions:
        """Read the predictions of these cases in a folder, which may not exist yet."""
        edited = find_edited_labels(folder, cases, ending)
        return cls(folder, cases, ending, read_prediction_record(folder), edited)

    def find_edit_problems(self) -> Iterator[Problem]:
        """Yield a problem for each corrected label, which a new prediction would replace."""
        for path in self.edited.values():
            fix = "move it away, accept it (semi_nnunet accept), or keep it: --c"
            yield Problem(str(path), "was changed since it was predicted", fix)

    def replace_outdated(self, inputs: Inputs, record: Records) -> None:
        """Remove predictions of changed images, and record what the next ones are made from.

        Corrected labels stay.

        Args:
            inputs: files and options of the next predictions.
            record: of the inputs, and the name of the model.
        """
        if self.edited:
            logger.warning(f"labels that were changed by hand stay: {list_first([*self.edited])}")
        outdated = find_outdated_cases(self.cases, self.record, inputs)
        removed = [case for case in outdated if case not in self.edited]
        for path in find_predictions(self.folder, removed, self.ending).values():
            path.unlink()  # else a killed command would leave it as one of the present image
        write_record(self.folder / PREDICTED_FROM, record)
        (self.folder / EARLIER_RECORD).unlink(missing_ok=True)
        if others := sorted({*list_cases(self.folder, self.ending)} - {*self.cases}):
            logger.warning(
                f"{self.folder} also holds earlier predictions of other images: "
                f"{list_first(others)}"
            )

    def list_complete(self) -> dict[str, Path]:
        """Return case -> its file, for cases whose prediction is complete."""
        return find_predictions(self.folder, self.cases, self.ending)


def list_images(cases: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Return the images of cases by their names in a record of predictions."""
    return {f"image {Path(file).name}": Path(file) for files in cases.values() for file in files}


def describe_options(predictor: ImagePredictor) -> str:
    """Return the options and, if ``tune`` chose some, the axes of mirrored images."""
    stages = list[ImagePredictor]()
    for last in (predictor, predictor.coarse):
        stage = last if isinstance(last, ImagePredictor) else None
        while stage is not None:
            stages.append(stage)
            stage = stage.previous
    allowed = [tuple(stage.loaded.allowed_mirroring_axes or ()) for stage in stages]
    axes = [stage.window.mirror_axes for stage in stages]
    is_tuned = predictor.options.mirror is None and axes != allowed
    return f"{predictor.options}, mirrored along {axes}" if is_tuned else str(predictor.options)


def list_networks(models: Sequence[TrainedModel]) -> dict[str, Path]:
    """Return the checkpoints of the model and of the coarse one, with their first stages."""
    networks = dict[str, Path]()
    for title, model in zip((NETWORK, COARSE), models, strict=False):
        stage: TrainedModel | None = model
        while stage is not None:
            for fold, path in stage.checkpoints.items():
                networks[name_network(title, fold, stage.folds)] = path
            title, stage = f"{FIRST_STAGE}{title}", stage.previous
    return networks


def name_network(title: str, fold: str, folds: Collection[str]) -> str:
    """Return the name of a network in a record; that of an only fold is not named after it."""
    return title if len(folds) == 1 else f"{title} of fold {fold}"


def read_prediction_record(folder: Path) -> Records:
    """Return the record of the predictions in a folder; {} if there is no record.

    Earlier versions recorded only names and checksums of the models.
    """
    if (folder / PREDICTED_FROM).is_file():
        return read_record(folder / PREDICTED_FROM)
    records = dict[str, FileRecord | str]()
    for (key, model), title in zip(
        optional_json(folder / EARLIER_RECORD).items(), (NETWORK, COARSE), strict=False
    ):
        if key == "predicted_by":
            records[MODEL] = model["model"]
        while model is not None:
            for fold, digest in model["folds"].items():
                records[name_network(title, fold, model["folds"])] = digest
            title, model = f"{FIRST_STAGE}{title}", model.get("previous")
    return records


def find_outdated_cases(
    cases: Mapping[str, Sequence[str]], earlier: Records, inputs: Inputs
) -> list[str]:
    """Return the cases whose predictions were made from other images, or in another way.

    Args:
        cases: case -> its images.
        earlier: the record of the predictions; of earlier versions, it lacks images and options.
        inputs: the present ones.
    """
    if OPTIONS not in earlier and not any(name.startswith("image ") for name in earlier):
        return []
    changed = {*compare_inputs(earlier, inputs)}
    if OPTIONS in changed:
        return list(cases)
    return [
        case for case, files in cases.items() if changed.intersection(list_images({case: files}))
    ]


def find_edited_labels(folder: Path, cases: Iterable[str], ending: str) -> dict[str, Path]:
    """Return case -> its file, for labels that were corrected after their prediction.

    Labels of earlier versions have no record and are not returned.
    """
    written = WrittenLabels(folder)
    edited = written.read().keys() - written.list_unchanged()
    return find_predictions(folder, [case for case in cases if case in edited], ending)


def find_predictions(folder: Path, cases: Iterable[str], ending: str) -> dict[str, Path]:
    """Return case -> its file, for cases whose prediction is complete."""
    paths = {case: folder / f"{case}{ending}" for case in cases}
    return {case: path for case, path in paths.items() if path.is_file() and is_complete(path)}


def is_complete(image: Path) -> bool:
    """Return whether a file holds all of its image, as far as its format allows to tell."""
    try:
        require_complete_image(image)
    except OSError:
        return False
    return True


def find_folder_problems(
    cases: Mapping[str, Any],
    images: Path,
    description: Mapping[str, Any],
    networks: Inputs,
    earlier: EarlierPredictions,
) -> Iterator[Problem]:
    """Yield a problem if there are no images, or if files in the output folder would be lost.

    Earlier predictions of the same models are replaced; those of others would mix with the new.

    Args:
        cases: of the images.
        images: their folder.
        description: content of the model's dataset.json.
        networks: of the models, see :func:`list_networks`; empty if one is missing.
        earlier: predictions in the output folder.
    """
    out, record, ending = earlier.folder, earlier.record, earlier.ending
    if not cases:
        message = f"holds no image CASE_0000{ending}"
        if images.is_dir():
            yield Problem(str(images), message, "correct the folder, or name its files so")
        else:
            yield Problem(str(images), "is no folder of images", "correct the folder")
    if file := file_in_the_way(out):
        yield Problem(str(out), f"must be a folder, got the file {file}", "choose another -o")
        return
    if images.exists() and out.exists() and out.samefile(images):
        message = "must be another folder than that of the images"
        yield Problem(str(out), message, "choose another -o")
        return
    lost = [name for name in (f"{case}{ending}" for case in cases) if (out / name).exists()]
    path = out / DATASET_JSON
    if path.exists() and not (
        path.is_file() and is_same_description(optional_json(path), description)
    ):
        message = f"must be new, or hold predictions of this model, got another {DATASET_JSON}"
        yield Problem(str(out), message, "choose another -o, or remove that folder")
        return
    known = {name: entry for name, entry in record.items() if is_network(name)}
    if known and networks and compare_inputs(known, networks):
        name = record.get(MODEL, "another model")
        message = f"must be new, or hold predictions of this model, got those of {name} with "
        yield Problem(
            str(out), f"{message}other weights", "choose another -o, or remove that folder"
        )
    elif not record and (kept := sorted({*list_cases(out, ending)} - {*cases})):
        message = f"holds {kept[0]}{ending} of an unknown model, which would be mixed with others"
        yield Problem(str(out), message, "choose another -o, or remove that folder")
    elif lost and not path.exists():
        message = f"holds {lost[0]}, which is not a prediction of ours and would be lost"
        yield Problem(str(out), message, "choose another -o")


def is_network(name: str) -> bool:
    """Return whether an entry of a record names a network, neither an image nor options."""
    return name.removeprefix(FIRST_STAGE).startswith((NETWORK, COARSE))


def is_same_description(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two dataset.json describe the same data set, apart from size and our keys.

    >>> is_same_description({"labels": {}, "numTraining": 5}, {"labels": {}, "one_piece": True})
    True
    """
    ours, theirs = without_own_keys(first), without_own_keys(second)
    return {**ours, "numTraining": None} == {**theirs, "numTraining": None}
