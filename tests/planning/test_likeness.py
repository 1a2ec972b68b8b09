"""Plans shaped after a trained model, and trainings from its weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.cli.main import main
from semi_nnunet.planning.likeness import (
    ModelShape,
    apply_shape,
    choose_shaped_configuration,
    fit_weights,
)
from semi_nnunet.planning.topology import build_planned_network
from semi_nnunet.reporting.background import list_planning_commands
from semi_nnunet.runs.folders import Folders
from semi_nnunet.training.checkpoints import read_of_any_trainer
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs

CT = {"mean": 1.0, "std": 2.0, "percentile_00_5": 0.0, "percentile_99_5": 4.0}


def shape_of(dataset: Any, configuration: str = "3d_fullres", **changes: Any) -> ModelShape:
    """Return the shape of a model that the plans of a data set describe."""
    planned = PlansManager(dataset.plans).get_configuration(configuration)
    values = {
        "path": Path("model.pth"),
        "content": {"network_weights": {}},
        "dataset": "Dataset501_Other",
        "configuration": configuration,
        "patch_size": tuple(planned.patch_size),
        "spacing": tuple(planned.spacing),
        "normalization_schemes": tuple(planned.normalization_schemes),
        "architecture": planned.configuration["architecture"],
        "batch_size": 3,
    }
    return ModelShape(**{**values, **changes})


def save_checkpoint(
    dataset: Any, path: Path, configuration: str = "3d_fullres", features: int = 6
) -> Path:
    """Write a checkpoint as nnU-Net does, of a wider network than the data set's plans have."""
    plans = dataset.plans
    arguments = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [features] * arguments["n_stages"]
    channels = len(dataset.dataset_json["channel_names"])
    network = build_planned_network(plans["configurations"][configuration], channels, 7)
    arguments = {"plans": plans, "configuration": configuration}
    content = {"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer"}
    torch.save({**content, "init_args": arguments}, path)
    return path


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_every_trainer_starts_from_the_weights_of_a_model_with_other_channels_and_classes(
    configuration: str, prepared_dataset: Any, make_trainer: Any, tmp_path: Path, capsys: Any
) -> None:
    path = save_checkpoint(prepared_dataset("labels", 1), tmp_path / "a.pth", configuration)
    target, name = prepared_dataset("labels", 2), f"like_{configuration}"
    words = ["plan", "-d", target.name, "--like", str(path), "--new-plans", name]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 image channel spread over 2" in out and f"-p {name}" in out
    plans = target.load_plans(name)
    assert [*plans["configurations"]] == [configuration]
    planned = plans["configurations"][configuration]
    assert planned["architecture"]["arch_kwargs"]["features_per_stage"][0] == 6
    assert plans["semi"][configuration]["pretrained"] == str(path)
    assert plans["semi"][configuration]["initial_lr"] == 1e-3
    stored = read_of_any_trainer(path)["network_weights"]
    for trainer_name in ("SemiBaselineTrainer", "SemiMeanTeacherTrainer"):
        dataset = SimpleNamespace(plans=plans, dataset_json=target.dataset_json)
        trainer = make_trainer(trainer_name, configuration, dataset=dataset, pretrained=str(path))
        state = trainer.bare_network.state_dict()
        same = {key for key in state if torch.equal(state[key], stored[key])}
        others = {key for key in state if key not in same}
        assert same and all("seg_layers" in key or "stages.0.0.convs.0" in key for key in others)
        assert trainer.settings.warm_up_epochs == 1 and trainer.settings.initial_lr == 1e-3
        run_epochs(trainer, 1)


def test_planning_again_keeps_the_shape_but_not_under_the_name_of_another_model(
    prepared_dataset: Any, tmp_path: Path, capsys: Any
) -> None:
    dataset = prepared_dataset("labels", 2)
    path = save_checkpoint(prepared_dataset("labels", 1), tmp_path / "a.pth")
    words = ["plan", "-d", dataset.name, "--new-plans", "again", "--like"]
    assert main([*words, str(path), "--set", "epochs=7"]) == 0
    assert main([*words, str(path)]) == 0
    assert dataset.load_plans("again")["semi"]["epochs"] == 7
    folders = Folders(dataset.raw, dataset.preprocessed, dataset.results)
    command = list_planning_commands(folders, "again", "3d_fullres")[-1]
    assert f"--like {path}" in command
    other = save_checkpoint(prepared_dataset("labels", 1), tmp_path / "b.pth")
    capsys.readouterr()
    assert main([*words, str(other)]) == 2
    assert "--new-plans" in capsys.readouterr().err


def test_another_spacing_or_normalisation_needs_its_own_data(prepared_dataset: Any) -> None:
    dataset = prepared_dataset("labels", 1)
    plans = dataset.plans
    original = plans["configurations"]["3d_fullres"]
    same = apply_shape(plans, shape_of(dataset), "3d_fullres", "new")
    kept = same["configurations"]["3d_fullres"]
    assert kept["data_identifier"] == original["data_identifier"] and kept["batch_size"] == 3
    doubled = tuple(2 * edge for edge in original["spacing"])
    for changes in (
        {"spacing": doubled},
        {"normalization_schemes": ("RescaleTo01Normalization",)},
    ):
        shaped = apply_shape(plans, shape_of(dataset, **changes), "3d_fullres", "new")
        assert shaped["configurations"]["3d_fullres"]["data_identifier"] == "new_3d_fullres"
    shaped = apply_shape(plans, shape_of(dataset, spacing=doubled), "3d_fullres", "new")
    median = shaped["configurations"]["3d_fullres"]["median_image_size_in_voxels"]
    assert median[0] == -(-original["median_image_size_in_voxels"][0] // 2)
    assert plans == dataset.plans  # unchanged


def test_ct_is_clipped_as_by_the_model_and_other_images_are_not(prepared_dataset: Any) -> None:
    dataset = prepared_dataset("labels", 1)
    shape = shape_of(
        dataset, normalization_schemes=("CTNormalization",), intensities={"0": {**CT, "max": 9.0}}
    )
    plans = dataset.plans
    as_mr = apply_shape(plans, shape, "3d_fullres", "new")
    assert as_mr["configurations"]["3d_fullres"]["normalization_schemes"] == ["ZScoreNormalization"]
    key = "foreground_intensity_properties_per_channel"
    assert as_mr[key] == plans[key]
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["CTNormalization"]
    plans[key]["0"] = {**CT, "mean": 50.0}
    shaped = apply_shape(plans, shape, "3d_fullres", "new")
    assert shaped[key]["0"] == CT
    assert shaped["configurations"]["3d_fullres"]["data_identifier"] == "new_3d_fullres"
    broken = shape_of(
        dataset, normalization_schemes=("CTNormalization",), intensities={"0": {"mean": "x"}}
    )
    assert apply_shape(plans, broken, "3d_fullres", "new")[key] == plans[key]


# ---- bad input ----


def test_images_of_another_dimension_are_refused(
    prepared_dataset: Any, tmp_path: Path, capsys: Any
) -> None:
    dataset = prepared_dataset("labels", 1)
    path = save_checkpoint(dataset, tmp_path / "a.pth")
    assert main(["plan", "-d", dataset.name, "-c", "2d", "--like", str(path)]) == 2
    assert "3-D images" in capsys.readouterr().err
    plans = {"configurations": {"2d": dataset.plans["configurations"]["2d"]}}
    with pytest.raises(UserError, match="no such configuration"):
        choose_shaped_configuration(plans, shape_of(dataset), None)
    with pytest.raises(UserError, match="one configuration"):
        choose_shaped_configuration(dataset.plans, shape_of(dataset), ["2d", "3d_fullres"])


def test_options_that_contradict_the_model_are_refused(
    prepared_dataset: Any, tmp_path: Path, capsys: Any
) -> None:
    dataset = prepared_dataset("labels", 1)
    path = save_checkpoint(dataset, tmp_path / "a.pth")
    command = ["plan", "-d", dataset.name, "--like", str(path), "--budget", "cpu"]
    assert main([*command, "--patch", "8", "16", "16"]) == 2
    assert "--budget and --patch" in capsys.readouterr().err


def test_a_file_with_missing_weights_is_refused_before_plans_are_written(
    prepared_dataset: Any, tmp_path: Path, capsys: Any
) -> None:
    dataset = prepared_dataset("labels", 1)
    path = save_checkpoint(dataset, tmp_path / "a.pth")
    content = torch.load(path, weights_only=True)
    weights = content["network_weights"]
    content["network_weights"] = {k: v for k, v in weights.items() if "encoder" not in k}
    torch.save(content, path)
    assert main(["plan", "-d", dataset.name, "--like", str(path), "--new-plans", "never"]) == 2
    assert "is missing" in capsys.readouterr().err
    assert not (dataset.preprocessed / "never.json").exists()


def test_a_model_of_a_trainer_with_another_network_is_refused(prepared_dataset: Any) -> None:
    dataset = prepared_dataset("labels", 1)
    weights = {"model.weight": torch.zeros(3, 3)}
    shape = shape_of(dataset, content={"network_weights": weights})
    with pytest.raises(UserError, match="0 of") as error:
        fit_weights(dataset.plans, dataset.dataset_json, shape, "3d_fullres")
    assert "pretrained" in str(error.value.fix)


def test_a_2d_network_cannot_start_a_3d_training(
    prepared_dataset: Any, make_trainer: Any, tmp_path: Path
) -> None:
    """Its vectors would fit, such as the biases."""
    path = save_checkpoint(prepared_dataset("labels", 1), tmp_path / "a.pth", "2d", features=4)
    with pytest.raises(UserError, match=r"has shape \[4, 1, 3, 3\]"):
        make_trainer("SemiBaselineTrainer", "3d_fullres", pretrained=str(path))
