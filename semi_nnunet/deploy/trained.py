"""Find trained models, nnU-Net's or ours, and check that they fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.deploy.descriptions import (
    REQUIRED,
    find_description_problems,
    find_unknown_networks,
    read_model_json,
)
from semi_nnunet.raw.classes import has_regions
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    FINAL_CHECKPOINT,
    PLANS_JSON,
    find_fold_folders,
    read_fold,
    resolve_dataset_name,
)
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import sha256_of_version

COMPARED = ("labels", "regions_class_order", "channel_names", "file_ending")  # of dataset.json


@dataclass(frozen=True)
class TrainedModel:
    """Folds of one training folder, whose networks' logits are averaged as nnU-Net does.

    >>> model = TrainedModel(Path("Dataset042_X/nnUNetTrainer__nnUNetPlans__2d"), ("0", "1"))
    >>> print(model)
    Dataset042_X/nnUNetTrainer__nnUNetPlans__2d fold 0 1
    >>> model.parts
    ('nnUNetTrainer', 'nnUNetPlans', '2d')

    Args:
        folder: TRAINER__PLANS__CONFIGURATION, with plans.json and dataset.json.
        folds: for example ("0", "1") or ("all",).
        checkpoint: name of the file in each fold.
    """

    folder: Path
    folds: tuple[str, ...]
    checkpoint: str = FINAL_CHECKPOINT

    def __str__(self) -> str:
        return f"{self.name} fold {' '.join(self.folds)}"

    @property
    def name(self) -> str:
        """Data set, trainer, plans and configuration."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def parts(self) -> tuple[str, str, str]:
        """Trainer, plans' identifier and configuration, from the name of the folder."""
        trainer, plans, configuration = self.folder.name.rsplit("__", 2)
        return trainer, plans, configuration

    @property
    def configuration(self) -> str:
        return self.parts[-1]

    @property
    def dataset_json(self) -> dict[str, Any]:
        """Content of dataset.json."""
        return self._read(DATASET_JSON)

    @property
    def plans(self) -> dict[str, Any]:
        """Content of plans.json."""
        return self._read(PLANS_JSON)

    def _read(self, name: str) -> dict[str, Any]:
        return dict(read_model_json(self.folder / name, REQUIRED[name]))

    @cached_property
    def previous(self) -> TrainedModel | None:
        """The first stage of a cascade, of the same trainer and folds; None without a cascade."""
        configuration = self.configuration
        stage = PlansManager(self.plans).get_configuration(configuration).previous_stage_name
        if stage is None:
            return None
        name = self.folder.name.removesuffix(configuration) + stage
        return replace(self, folder=self.folder.with_name(name))

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Fold -> its checkpoint."""
        return {fold: self.folder / f"fold_{fold}" / self.checkpoint for fold in self.folds}

    def record(self) -> dict[str, Any]:
        """Return what predictions depend on: name and checksums, of the previous stage, too."""
        previous = {} if self.previous is None else {"previous": self.previous.record()}
        return {"model": self.name, "folds": self.checksums(), **previous}

    def checksums(self) -> dict[str, str]:
        """Return fold -> SHA-256 of its checkpoint."""
        return {fold: sha256_of_version(path) for fold, path in self.checkpoints.items()}


# ---- find ----


def find_model(text: str, checkpoint: str = FINAL_CHECKPOINT) -> TrainedModel:
    """Find the model of a folder, or some of its folds.

    Args:
        text: path of TRAINER__PLANS__CONFIGURATION or of a fold_0 in it (several: fold_0_1), as it
            is or below nnUNet_results, where the number of a data set stands for its name.
        checkpoint: name of the file that a fold needs.

    Raises:
        UserError: no model is found; lists the searched folders. Or it is a user's copy of a fold,
            or of a model under the name of a configuration that its plans lack.
    """
    root = nnUNet_results.get()
    number, _, rest = text.partition("/")
    relative = f"{resolve_dataset_name(number)}/{rest}" if number.isdecimal() and rest else text
    named = Path(text).expanduser().absolute()  # "." has no name
    candidates = list(dict.fromkeys([named, *([Path(root) / relative] if root else [])]))
    for path in candidates:
        is_fold = path.name.startswith("fold_")
        if is_fold and path.is_dir() and read_fold(path) is None:
            raise UserError(
                f"{path} must be a fold, whose name is fold_all or fold_ and a number",
                fix=f"move it into a copy of {path.parent}, under its original name",
            )
        folder = path.parent if is_fold else path
        places = find_fold_folders(folder)
        requested = [read_fold(path)] if is_fold and path.is_dir() else path.name.split("_")[1:]
        folds = requested if is_fold else [*places]
        trained = [f for f in folds if f in places and (places[f] / checkpoint).is_file()]
        if is_fold and trained != requested:
            continue
        if len(trained) > 1 and not is_fold:  # as nnU-Net: fold "all" has seen every case
            trained = [fold for fold in trained if fold != "all"]
        is_model = folder.name.count("__") > 1  # TRAINER__PLANS__CONFIGURATION
        described = all((folder / f"{name}.json").is_file() for name in ("plans", "dataset"))
        if is_model and trained and described:
            model = TrainedModel(folder.absolute(), tuple(trained), checkpoint)
            require_valid_descriptions(model)
            return model
    raise UserError(
        f"no trained model: looked for plans.json, dataset.json and fold_*/{checkpoint} in "
        f"{' and '.join(map(str, candidates))}",
        fix=f"give a folder TRAINER__PLANS__CONFIGURATION of "
        f"nnUNet_results{'' if root else ' (which is not set)'}, or a fold in it, that was trained "
        f"to its end",
    )


def require_valid_descriptions(model: TrainedModel) -> None:
    """Check the JSON files of a model, and that its plans have the configuration of its folder.

    Raises:
        UserError: the folder was renamed, or the files have values that no trained model has.
    """
    configurations = model.plans["configurations"]
    if not isinstance(configurations, Mapping) or model.configuration not in configurations:
        names = ", ".join(map(str, configurations)) if isinstance(configurations, Mapping) else ""
        raise UserError(
            f"{model.folder} must be named TRAINER__PLANS__CONFIGURATION with a configuration of "
            f"its plans, got {model.configuration}, but plans.json has {names or 'none'}",
            fix="rename the folder, or restore its plans.json",
        )
    plans, description = model.plans, model.dataset_json
    problems = [*find_unknown_networks(plans, str(model.folder / PLANS_JSON))]
    problems += find_description_problems(plans, model.configuration, description, model.folder)
    raise_if_any(f"{model} cannot be used:", problems)


def find_models(texts: Sequence[str], checkpoint: str = FINAL_CHECKPOINT) -> list[TrainedModel]:
    """Find all models and check that they can label images together.

    Raises:
        UserError: a model is missing, or they differ in labels, channels or files.
    """
    models = [find_model(text, checkpoint) for text in texts]
    problems = [*find_differences(models), *find_stage_problems(models)]
    raise_if_any("These models cannot label the same images:", problems)
    return models


def select_folds(model: TrainedModel, folds: Sequence[str] | None) -> TrainedModel:
    """Return the model with these folds; None: as it is.

    Raises:
        UserError: a fold was not trained to its end.
    """
    if folds is None:
        return model
    selected = replace(model, folds=tuple(folds))
    fix = "finish its training, or choose others"
    problems = [
        Problem(f"fold {fold}", f"has no {model.checkpoint}", fix)
        for fold, path in selected.checkpoints.items()
        if not path.is_file() or read_fold(path.parent) is None
    ]
    raise_if_any(f"{model.folder} lacks folds:", problems)
    return selected


# ---- compare ----


def find_differences(models: Sequence[TrainedModel]) -> Iterator[Problem]:
    """Yield a problem for every model that cannot predict the images of the first one."""
    readers = [model.plans["image_reader_writer"] for model in models]
    for model, reader in zip(models[1:], readers[1:], strict=True):
        yield from find_model_mismatches(model, models[0].dataset_json, str(models[0]))
        if reader != readers[0]:  # its images may have other axes
            message = f"must read files as {models[0]} does, by {readers[0]}, got {reader}"
            yield Problem(str(model), message, "choose models of one planning")


def require_same_data(
    models: Sequence[TrainedModel], description: Mapping[str, Any], dataset: str
) -> None:
    """Check that models have the labels, channels and files of a data set.

    Args:
        models: to check.
        description: content of dataset.json.
        dataset: its name in errors.

    Raises:
        UserError: a model differs.
    """
    problems = [p for model in models for p in find_model_mismatches(model, description, dataset)]
    raise_if_any(f"These models cannot label the images of {dataset}:", problems)


def require_same_preprocessing(
    models: Sequence[TrainedModel],
    plans: PlansManager,
    configuration: str,
    description: Mapping[str, Any],
) -> None:
    """Check that models can predict patches preprocessed by other plans.

    A model of another data set may have more classes, if it has all classes of this one by name.

    Args:
        models: to check.
        plans, configuration: by which patches are preprocessed.
        description: content of dataset.json.

    Raises:
        UserError: a model lacks classes or channels, or was trained on other preprocessing.
    """
    problems: list[Problem] = []
    expected = describe_preprocessing(plans, configuration)
    for model in models:
        can_select = select_class_channels(model.dataset_json, description) is not None
        keys = ("channel_names",) if can_select else COMPARED
        problems += find_model_mismatches(model, description, plans.dataset_name, keys)
        actual = describe_preprocessing(PlansManager(model.plans), model.configuration)
        for key, value in expected.items():
            if actual[key] != value:
                message = f"must have been trained with {key} {value}, got {actual[key]}"
                fix = "choose models of the same plans and configuration"
                problems.append(Problem(str(model), message, fix))
    raise_if_any(f"These models cannot teach {configuration}:", problems)


def describe_preprocessing(plans: PlansManager, configuration: str) -> dict[str, Any]:
    """Return the plans' values that decide how a network sees an image."""
    manager = plans.get_configuration(configuration)
    properties = plans.foreground_intensity_properties_per_channel
    ct_intensities = {
        channel: properties[str(channel)]
        for channel, scheme in enumerate(manager.normalization_schemes)
        if scheme == "CTNormalization"
    }
    return {
        "spacing": list(manager.spacing),
        "normalization_schemes": list(manager.normalization_schemes),
        "use_mask_for_norm": list(manager.use_mask_for_norm),
        "transpose_forward": list(plans.transpose_forward),
        "intensities": ct_intensities,
        "previous_stage": manager.previous_stage_name,
    }


def select_class_channels(
    theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """Return the output channel of a model for each class of a data set, by name.

    >>> model = {"labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}}
    >>> select_class_channels(model, {"labels": {"background": 0, "spleen": 1, "liver": 2}})
    (0, 2, 1)

    Args:
        theirs, ours: content of the dataset.json of the model and of the data set.

    Returns:
        Channels of the background and of the classes in the order of their values; None if the
        model lacks a class, or one of the two has regions.
    """
    labels = [drop_ignore_label(content["labels"]) for content in (theirs, ours)]
    if any(map(has_regions, labels)) or not labels[1].keys() <= labels[0].keys():
        return None
    values = sorted(labels[0].values())
    by_value = sorted(labels[1], key=lambda name: int(labels[1][name]))
    return tuple(values.index(labels[0][name]) for name in by_value)


def find_model_mismatches(
    model: TrainedModel,
    description: Mapping[str, Any],
    dataset: str,
    keys: Sequence[str] = COMPARED,
) -> Iterator[Problem]:
    """Yield a problem for every key in which a model differs from a dataset.json."""
    actual, expected = (
        {"channel_names": content.get("modality"), **content}
        for content in (model.dataset_json, description)
    )
    for key in keys:
        if drop_ignore_label(actual.get(key)) != drop_ignore_label(expected.get(key)):
            message = (
                f"must have the {key} of {dataset}, {expected.get(key)}, got {actual.get(key)}"
            )
            yield Problem(str(model), message, "choose models of one data set")


def drop_ignore_label(value: Any) -> Any:
    """Return labels without the ignore label, which is never predicted."""
    return {k: v for k, v in value.items() if k != "ignore"} if isinstance(value, dict) else value


def find_stage_problems(models: Sequence[TrainedModel]) -> Iterator[Problem]:
    """Yield a problem for every second stage whose first stage is missing or of other data."""
    for model in models:
        previous = model.previous
        if previous is None:
            continue
        files = [previous.folder / f"{name}.json" for name in ("plans", "dataset")]
        files += previous.checkpoints.values()
        if missing := [str(path) for path in files if not path.is_file()]:
            message = f"needs the predictions of {previous.configuration}, there is no"
            fix = "train it, or label with a model of a single stage, such as 3d_fullres"
            yield Problem(str(model), f"{message} {', '.join(missing)}", fix)
        else:
            yield from find_model_mismatches(previous, model.dataset_json, str(model))


def require_readable(models: Sequence[TrainedModel]) -> None:
    """Check all checkpoints, also of first stages, before long work starts.

    Raises:
        UserError: lists every checkpoint that is damaged or could execute code because it holds
            more than tensors and plain values, and all plans that name untrusted code.
    """
    problems: list[Problem] = []
    stages = [stage for model in models for stage in (model.previous, model) if stage is not None]
    for stage in stages:
        problems += find_unknown_networks(stage.plans, str(stage.folder / PLANS_JSON))
        for path in stage.checkpoints.values():
            try:
                checkpoints.read_of_any_trainer(path)
            except UserError as error:
                message = error.what.removeprefix(f"{path} ")
                problems.append(Problem(str(path), message, error.fix or "give another model"))
    raise_if_any("These models cannot be read:", problems)
