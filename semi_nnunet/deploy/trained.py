"""Trained models that are found: any nnU-Net's, ours or not, one or several folds of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data.layout import dataset_name
from semi_nnunet.deploy.descriptions import REQUIRED, network_problems, require_json
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import sha256_of_version

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class TrainedModel:
    """Folds of one training folder, whose networks' logits are averaged as nnU-Net does.

    Args:
        folder: TRAINER__PLANS__CONFIGURATION, with plans.json and dataset.json.
        folds: for example ("0", "1") or ("all",).
        checkpoint: name of the file in each fold.
    """

    folder: Path
    folds: tuple[str, ...]
    checkpoint: str = CHECKPOINT

    def __str__(self) -> str:
        return f"{self.name} fold {' '.join(self.folds)}"

    @property
    def name(self) -> str:
        """Data set, trainer, plans and configuration."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def parts(self) -> tuple[str, str, str]:
        """The trainer, the plans' identifier and the configuration, as its folder is named."""
        trainer, plans, configuration = self.folder.name.rsplit("__", 2)
        return trainer, plans, configuration

    @property
    def configuration(self) -> str:
        return self.parts[-1]

    @property
    def dataset_json(self) -> dict[str, Any]:
        """Content of dataset.json."""
        return self._description("dataset.json")

    @property
    def plans(self) -> dict[str, Any]:
        """Content of plans.json."""
        return self._description("plans.json")

    def _description(self, name: str) -> dict[str, Any]:
        return dict(require_json(self.folder / name, REQUIRED[name]))

    @cached_property
    def previous(self) -> TrainedModel | None:
        """The stage of a cascade before this one: the same trainer's, with the same folds."""
        own = self.configuration
        stage = PlansManager(self.plans).get_configuration(own).previous_stage_name
        if stage is None:
            return None
        return replace(self, folder=self.folder.with_name(self.folder.name[: -len(own)] + stage))

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Fold -> its checkpoint."""
        return {fold: self.folder / f"fold_{fold}" / self.checkpoint for fold in self.folds}

    def record(self) -> dict[str, Any]:
        """What predictions depend on: its name, the SHA-256 of its checkpoints, stages before."""
        before = {} if self.previous is None else {"previous": self.previous.record()}
        return {"model": self.name, "folds": self.checksums(), **before}

    def checksums(self) -> dict[str, str]:
        """Fold -> SHA-256 of its checkpoint."""
        return {fold: sha256_of_version(path) for fold, path in self.checkpoints.items()}


def find_model(text: str, checkpoint: str = CHECKPOINT) -> TrainedModel:
    """The model of a folder, or of one of its folds.

    Args:
        text: path of TRAINER__PLANS__CONFIGURATION or of a fold_N in it, as it is or below
            nnUNet_results, where the number of a data set stands for its name.
        checkpoint: name of the file that a fold needs.

    Raises:
        UserError: there is none; says where it was looked for.
    """
    root = nnUNet_results.get()
    number, _, rest = text.partition("/")
    below = f"{dataset_name(number)}/{rest}" if number.isdecimal() and rest else text
    places = [Path(text).expanduser(), *([Path(root) / below] if root else [])]
    for place in places:
        single = place.name.startswith("fold_")
        folder = place.parent if single else place
        folds = [place] if single else sorted(folder.glob("fold_*"))
        trained = [fold for fold in folds if (fold / checkpoint).is_file()]
        if len(trained) > 1:  # fold "all" has seen every case; nnU-Net's own choice leaves it out
            trained = [fold for fold in trained if fold.name != "fold_all"]
        is_model = folder.name.count("__") > 1  # TRAINER__PLANS__CONFIGURATION
        described = all((folder / f"{name}.json").is_file() for name in ("plans", "dataset"))
        if is_model and trained and described:
            names = (fold.name.removeprefix("fold_") for fold in trained)
            return TrainedModel(folder.absolute(), tuple(names), checkpoint)
    raise UserError(
        f"no trained model: looked for plans.json, dataset.json and fold_*/{checkpoint} in "
        f"{' and '.join(map(str, places))}",
        fix=f"give a folder TRAINER__PLANS__CONFIGURATION of "
        f"nnUNet_results{'' if root else ' (which is not set)'}, or a fold in it, that was trained "
        f"to its end",
    )


def with_folds(model: TrainedModel, folds: Sequence[str] | None) -> TrainedModel:
    """The model with the folds that are asked for.

    Raises:
        UserError: one was not trained to its end.
    """
    if folds is None:
        return model
    chosen = replace(model, folds=tuple(folds))
    wrong = [
        Problem(
            f"fold {fold}", f"has no {model.checkpoint}", "finish its training, or choose others"
        )
        for fold, path in chosen.checkpoints.items()
        if not path.is_file()
    ]
    raise_if_any(f"{model.folder} lacks folds:", wrong)
    return chosen


def find_models(texts: Sequence[str]) -> list[TrainedModel]:
    """All models, which must fit together.

    Raises:
        UserError: one is missing, or they differ in labels, channels or files; names all of them.
    """
    models = [find_model(text) for text in texts]
    problems = [*differences(models), *stage_problems(models)]
    raise_if_any("These models cannot label the same images:", problems)
    return models


def differences(models: Sequence[TrainedModel]) -> Iterator[Problem]:
    """What keeps the models from predicting the images of the first with its labels."""
    readers = [model.plans["image_reader_writer"] for model in models]
    for model, reader in zip(models[1:], readers[1:], strict=True):
        yield from unlike(model, models[0].dataset_json, str(models[0]))
        if reader != readers[0]:  # its images may have other axes
            what = f"must read files as {models[0]} does, by {readers[0]}, got {reader}"
            yield Problem(str(model), what, "choose models of one planning")


def require_models_of(
    models: Sequence[TrainedModel], description: Mapping[str, Any], dataset: str
) -> None:
    """Check that models predict the images and labels of a data set.

    Raises:
        UserError: one has other labels, channels or files.
    """
    problems = [problem for model in models for problem in unlike(model, description, dataset)]
    raise_if_any(f"These models cannot label the images of {dataset}:", problems)


def require_models_for(
    models: Sequence[TrainedModel],
    plans: PlansManager,
    configuration: str,
    description: Mapping[str, Any],
) -> None:
    """Check that models predict patches that were preprocessed by other plans.

    Raises:
        UserError: one has other labels or channels, or was trained on other preprocessing.
    """
    problems: list[Problem] = []
    wanted = preprocessing(plans, configuration)
    for model in models:
        problems += unlike(model, description, plans.dataset_name)
        own = preprocessing(PlansManager(model.plans), model.configuration)
        for key, value in wanted.items():
            if own[key] != value:
                what = f"must have been trained with {key} {value}, got {own[key]}"
                fix = "choose models of the same plans and configuration"
                problems.append(Problem(str(model), what, fix))
    raise_if_any(f"These models cannot teach {configuration}:", problems)


def preprocessing(plans: PlansManager, configuration: str) -> dict[str, Any]:
    """What decides how an image looks to a network."""
    one = plans.get_configuration(configuration)
    of_images = plans.foreground_intensity_properties_per_channel
    uses = {
        channel: of_images[str(channel)]
        for channel, scheme in enumerate(one.normalization_schemes)
        if scheme == "CTNormalization"
    }
    return {
        "spacing": list(one.spacing),
        "normalization_schemes": list(one.normalization_schemes),
        "use_mask_for_norm": list(one.use_mask_for_norm),
        "transpose_forward": list(plans.transpose_forward),
        "intensities": uses,
        "previous_stage": one.previous_stage_name,
    }


def unlike(model: TrainedModel, description: Mapping[str, Any], of: str) -> Iterator[Problem]:
    """Yield every key in which a model differs from a dataset.json."""
    own = {"channel_names": model.dataset_json.get("modality"), **model.dataset_json}
    other = {"channel_names": description.get("modality"), **description}
    for key in ("labels", "regions_class_order", "channel_names", "file_ending"):
        ours, theirs = own.get(key), other.get(key)
        if without_ignore(ours) != without_ignore(theirs):
            what = f"must have the {key} of {of}, {theirs}, got {ours}"
            yield Problem(str(model), what, "choose models of one data set")


def without_ignore(value: Any) -> Any:
    """Labels without the one that is never predicted."""
    return {k: v for k, v in value.items() if k != "ignore"} if isinstance(value, dict) else value


def stage_problems(models: Sequence[TrainedModel]) -> Iterator[Problem]:
    """Second stages without a first, whose predictions are their input, or with that of others."""
    for model in models:
        previous = model.previous
        if previous is None:
            continue
        files = [previous.folder / f"{name}.json" for name in ("plans", "dataset")]
        files += previous.checkpoints.values()
        if missing := [str(path) for path in files if not path.is_file()]:
            what = f"needs the predictions of {previous.configuration}, there is no"
            fix = "train it, or label with a model of a single stage, such as 3d_fullres"
            yield Problem(str(model), f"{what} {', '.join(missing)}", fix)
        else:
            yield from unlike(previous, model.dataset_json, str(model))


def require_readable(models: Sequence[TrainedModel]) -> None:
    """Check all checkpoints, those of earlier cascade stages too, before long work starts.

    Raises:
        UserError: naming every checkpoint that is damaged or holds more than tensors and plain
            values, which could execute code, and all plans that name code that is no network.
    """
    problems: list[Problem] = []
    stages = [one for model in models for one in (model.previous, model) if one is not None]
    for stage in stages:
        problems += network_problems(stage.plans, str(stage.folder / "plans.json"))
        for path in stage.checkpoints.values():
            try:
                checkpoints.read_of_any_trainer(path)
            except UserError as error:
                what = error.what.removeprefix(f"{path} ")
                problems.append(Problem(str(path), what, error.fix or "give another model"))
    raise_if_any("These models cannot be read:", problems)
