"""The shape of a trained model: of nnU-Net's own trainers, and of nnssl."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.primus import PrimusX
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from semi_nnunet.deploy.shapes import RES_ENC_L, read_model_shape
from semi_nnunet.networks.pretrained import ADAPTATION_KEY, find_output_layers
from semi_nnunet.planning.likeness import apply_shape, fit_weights
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json

SMALL = {**RES_ENC_L, "n_stages": 3, "features_per_stage": [4, 8, 8]}
SMALL |= {"kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], *[[2, 2, 2]] * 2]}
SMALL |= {"n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]}
KEYS = {
    "key_to_encoder": "encoder.stages",
    "key_to_stem": "encoder.stem",
    "keys_to_in_proj": ("encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"),
    "key_to_lpe": None,
}


def describe(name: str, arguments: Any, patch: Any = (16, 16, 16), **more: Any) -> dict[str, Any]:
    """Return nnssl's description of a checkpoint, with the keys that it writes."""
    configuration = {
        "spacing": [1.0, 1.0, 1.0],
        "patch_size": list(patch),
        "normalization_schemes": ["ZScoreNormalization"],
    }
    imported = arguments and ["conv_op", "norm_op", "nonlin"]
    return {
        "architecture_plans": {
            "arch_class_name": name,
            "arch_kwargs": arguments,
            "arch_kwargs_requiring_import": imported,
        },
        "pretrain_plan": {
            "dataset_name": "Dataset745_OpenMind",
            "configurations": {"onemmiso": configuration},
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": list(patch),
        **KEYS,
        **more,
    }


def write_nnssl(path: Path, description: Any, weights: Any) -> Path:
    torch.save({"network_weights": weights, ADAPTATION_KEY: description, "citations": []}, path)
    return path


@pytest.fixture
def encoder() -> dict[str, torch.Tensor]:
    """Weights of the small network; as nnssl's masked autoencoders have them, for one class."""
    arguments = {**SMALL, "conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d}
    network = ResidualEncoderUNet(
        input_channels=1, num_classes=1, **{**arguments, "nonlin": nn.LeakyReLU}
    )
    return network.state_dict()


@pytest.fixture
def model(prepared_dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model of nnU-Net's own trainer."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    dataset = prepared_dataset("labels", 1)
    plans = {**dataset.plans, "continue_training": False}
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset.dataset_json, torch.device("cpu"))
    trainer.initialize()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    folder = Path(trainer.output_folder_base)
    write_json(folder / "plans.json", dataset.plans)
    write_json(folder / "dataset.json", dataset.dataset_json)
    return folder


@pytest.mark.parametrize("end", ["", "fold_0", "fold_0/checkpoint_final.pth"])
def test_a_model_of_nnunets_own_trainer_has_the_shape_of_its_plans(
    model: Path, end: str, prepared_dataset: Any
) -> None:
    plans = prepared_dataset("labels", 1).plans
    planned, shape = plans["configurations"]["3d_fullres"], read_model_shape(str(model / end))
    assert shape.path == model / "fold_0" / "checkpoint_final.pth"
    assert shape.architecture == planned["architecture"] and shape.configuration == "3d_fullres"
    assert [*shape.patch_size] == planned["patch_size"]
    assert shape.spacing is not None and [*shape.spacing] == planned["spacing"]


def test_plans_of_earlier_versions_of_nnunet_are_read(model: Path) -> None:
    """As in the published models of TotalSegmentator."""
    plans = read_json(model / "plans.json")
    configuration = plans["configurations"]["3d_fullres"]
    arguments = configuration.pop("architecture")["arch_kwargs"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": arguments["features_per_stage"][0],
        "unet_max_num_features": max(arguments["features_per_stage"]),
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 1, 1],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }
    write_json(model / "plans.json", plans)
    with pytest.warns(UserWarning, match="old nnU-Net plans"):
        shape = read_model_shape(str(model))
    for key in ("n_stages", "features_per_stage", "strides", "kernel_sizes"):
        assert shape.architecture["arch_kwargs"][key] == arguments[key]


@pytest.mark.parametrize(
    ("name", "arguments"), [("ResidualEncoderUNet", SMALL), ("ResEncL", None), ("PrimusS", None)]
)
def test_a_checkpoint_of_nnssl_has_the_shape_of_its_description(
    name: str, arguments: Any, tmp_path: Path, encoder: Any
) -> None:
    path = write_nnssl(tmp_path / "a.pth", describe(name, arguments), encoder)
    shape = read_model_shape(str(path))
    assert shape.patch_size == (16, 16, 16) and shape.spacing == (1, 1, 1)
    assert shape.batch_size == 2 and shape.dataset == "Dataset745_OpenMind"
    assert shape.is_of_adapter == name.startswith("Primus")
    if name == "ResEncL":
        assert shape.architecture["arch_kwargs"]["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]


def test_the_encoder_of_nnssl_is_taken_under_its_name(
    tmp_path: Path, encoder: Any, prepared_dataset: Any
) -> None:
    """Self-distilling networks have two encoders, and no decoder."""
    weights = {f"online_{name}": value for name, value in encoder.items() if "decoder" not in name}
    keys = {"key_to_encoder": "online_encoder.stages", "key_to_stem": "online_encoder.stem"}
    description = describe("ResidualEncoderUNet", SMALL, **keys)
    shape = read_model_shape(str(write_nnssl(tmp_path / "a.pth", description, weights)))
    fits = fit_into(shape, prepared_dataset("labels", 2))
    stem, encoder_fits, decoder = (
        [fit.value is not None for fit in fits if fit.part == part]
        for part in ("stem", "encoder", "decoder")
    )
    assert all(stem) and all(encoder_fits) and not any(decoder)


def fit_into(shape: Any, dataset: Any) -> Any:
    plans = apply_shape(dataset.plans, shape, "3d_fullres", "new")
    return fit_weights(plans, dataset.dataset_json, shape, "3d_fullres")


def test_a_transformer_of_nnssl_fits(tmp_path: Path, prepared_dataset: Any) -> None:
    with torch.device("meta"):
        network = PrimusX(1, 1, "S", (8, 8, 8), (16, 16, 16))
    weights = {name: torch.zeros(value.shape) for name, value in network.state_dict().items()}
    keys = {"key_to_encoder": "eva", "key_to_stem": "down_projection"}
    description = describe("PrimusS", None, **keys, keys_to_in_proj=("down_projection.proj",))
    shape = read_model_shape(str(write_nnssl(tmp_path / "a.pth", description, weights)))
    fits = fit_into(shape, prepared_dataset("labels", 2))
    random = [fit.name for fit in fits if fit.value is None and fit.part in ("stem", "encoder")]
    assert not random


def test_images_of_different_spacing_leave_the_spacing_open(tmp_path: Path, encoder: Any) -> None:
    description = describe("ResidualEncoderUNet", SMALL)
    description["pretrain_plan"]["configurations"]["onemmiso"]["spacing"] = None
    assert (
        read_model_shape(str(write_nnssl(tmp_path / "a.pth", description, encoder))).spacing is None
    )


# ---- bad input ----


def test_a_model_folder_without_plans_is_refused(model: Path) -> None:
    (model / "plans.json").unlink()
    with pytest.raises(UserError, match=re.escape("plans.json")):
        read_model_shape(str(model))


def test_weights_without_a_description_are_refused(tmp_path: Path, encoder: Any) -> None:
    torch.save({"network_weights": encoder}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="describe its network") as error:
        read_model_shape(str(tmp_path / "a.pth"))
    assert "folder" in str(error.value.fix)


def test_a_file_that_can_execute_code_is_refused(tmp_path: Path, encoder: Any) -> None:
    torch.save({"network_weights": encoder, "more": nn.Linear(1, 1)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="execute code"):
        read_model_shape(str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("architecture_plans", "arch_class_name", "BrainJEPA"), "BrainJEPA"),
        (("architecture_plans", "arch_class_name", ["a"]), "keys that nnssl writes"),
        (("architecture_plans", "arch_kwargs", {**SMALL, "conv_op": "os.system"}), "os.system"),
        (("architecture_plans", "arch_kwargs", {**SMALL, "n_stages": 10**7}), "n_stages"),
        (("architecture_plans", "arch_kwargs", [1]), "nnssl"),
        (("pretrain_plan", "configurations", {}), "keys that nnssl writes"),
        (("pretrain_plan", "configurations", [1]), "keys that nnssl writes"),
        (("pretrain_plan", "dataset_name", "../up"), "dataset_name"),
        (("recommended_downstream_patchsize", [10**6] * 3), "patch_size"),
        (("recommended_downstream_patchsize", ["a"] * 3), "patch_size"),
        (("recommended_downstream_patchsize", [16]), "patch_size"),
    ],
)
def test_an_impossible_description_is_refused(
    change: tuple[Any, ...], message: str, tmp_path: Path, encoder: Any
) -> None:
    description = describe("ResidualEncoderUNet", copy.deepcopy(SMALL))
    *keys, last, value = change
    inner = description[keys[0]] if keys else description
    inner[last] = value
    with pytest.raises(UserError, match=message):
        read_model_shape(str(write_nnssl(tmp_path / "a.pth", description, encoder)))


def test_a_second_stage_is_refused(model: Path) -> None:
    plans = read_json(model / "plans.json")
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    write_json(model / "plans.json", plans)
    with pytest.raises(UserError, match="second stage"):
        read_model_shape(str(model))


def test_a_file_without_most_of_the_encoder_is_refused(
    tmp_path: Path, encoder: Any, prepared_dataset: Any
) -> None:
    weights = {name: value for name, value in encoder.items() if "stages.2" not in name}
    description = describe("ResidualEncoderUNet", SMALL)
    shape = read_model_shape(str(write_nnssl(tmp_path / "a.pth", description, weights)))
    with pytest.raises(UserError, match=r"encoder.stages.2.* is missing"):
        fit_into(shape, prepared_dataset())


def test_a_network_that_cannot_be_built_is_refused(
    tmp_path: Path, encoder: Any, prepared_dataset: Any
) -> None:
    description = describe("ResidualEncoderUNet", {**SMALL, "strides": [[2, 2, 2]]})
    shape = read_model_shape(str(write_nnssl(tmp_path / "a.pth", description, encoder)))
    with pytest.raises(UserError, match="can be built"):
        fit_into(shape, prepared_dataset())


def test_output_layers_of_a_transformer_are_known() -> None:
    heads = find_output_layers(lambda classes: PrimusX(1, classes, "S", (8, 8, 8), (16, 16, 16)))
    assert heads
