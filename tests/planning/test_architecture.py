"""Networks of other libraries are planned with a patch that they can process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.planning.architecture import (
    ARCHITECTURES,
    find_adapter,
    measure_network_size,
    name_architecture_plans,
    replace_architecture,
    round_to_multiple,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json

needs_libraries = pytest.mark.skipif(
    find_spec("segmentation_models_pytorch") is None or find_spec("monai") is None,
    reason="the extra architectures is missing",
)


@needs_libraries
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_can_be_planned(name, prepared_dataset):
    configuration = "2d" if name.startswith("smp.") else "3d_fullres"
    planned = prepared_dataset("labels", 1).plans["configurations"][configuration]
    large = {**planned, "patch_size": [128] * len(planned["patch_size"])}
    encoder = "tu-vit_tiny_patch16_224" if name == "smp.DPT" else "resnet50"
    plan = replace_architecture(large, name, encoder, None)
    parameters, _ = measure_network_size(plan, 1, 4)
    assert parameters > 10**4


@needs_libraries
def test_the_network_can_halve_the_patch(prepared_dataset):
    planned = prepared_dataset("labels", 1).plans["configurations"]["2d"]
    for edge in (20, 33, 100):
        plan = replace_architecture(
            {**planned, "patch_size": [edge, 64]}, "smp.Unet", "resnet18", None
        )
        assert plan["patch_size"] == [round_to_multiple(edge, 32), 64]
        parameters, operations = measure_network_size(plan, 3, 4)
        assert parameters > 10**7 and operations > 10**8
    assert len(ARCHITECTURES) == 21


@needs_libraries
def test_the_command_plans_and_measures_a_network(prepared_dataset, capsys):
    dataset = prepared_dataset("labels", 1)
    words = ["plan", "-d", dataset.raw.name, "-c", "2d", "--architecture"]
    assert main([*words, "smp.FPN", "--encoder", "resnet18"]) == 0
    output = capsys.readouterr().out
    assert "million parameters" in output and "GFLOPs a patch" in output
    path = dataset.preprocessed / "nnUNetPlans_smpFPN_resnet18.json"
    assert path.is_file()
    path.unlink()
    assert main([*words, "smp.Unett"]) == 2
    assert "smp.Unet?" in capsys.readouterr().err
    assert main([*words, "primus.S"]) == 2
    assert "primus.* for 3d" in capsys.readouterr().err
    assert main([*words, "smp.PAN", "--encoder", "vgg11_bn"]) == 2
    assert "PAN with vgg11_bn" in capsys.readouterr().err
    assert main([*words, "smp.Unet", "--encoder-weights", "nowhere.pth"]) == 2
    assert "nowhere.pth" in capsys.readouterr().err
    assert not list(dataset.preprocessed.glob("nnUNetPlans_*.json"))


@needs_libraries
def test_both_stages_of_a_cascade_get_the_network(make_trainer, prepared_cascade, tmp_path):
    """The second stage inherits the architecture of 3d_fullres, without deep supervision."""
    dataset = prepared_cascade()
    words = [
        "plan",
        "-d",
        dataset.name,
        "--architecture",
        "monai.SegResNet",
        "--new-plans",
        "segres",
    ]
    try:
        assert main(words) == 0
        plans = read_json(dataset.preprocessed / "segres.json")
    finally:
        (dataset.preprocessed / "segres.json").unlink(missing_ok=True)
    for stage in ("3d_fullres", "3d_cascade_fullres"):
        assert plans["semi"][stage]["deep_supervision"] is False
    assert "architecture" not in plans["configurations"]["3d_cascade_fullres"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_planning_changes_only_network_and_patch(name, prepared_dataset):
    """It needs no library: the plans may be used on another machine."""
    configuration = "2d" if name.startswith("smp.") else "3d_fullres"
    planned = prepared_dataset("labels", 1).plans["configurations"][configuration]
    original = repr(planned)
    plan = replace_architecture(planned, name, "resnet18", "imagenet")
    assert find_adapter(plan["architecture"]["network_class_name"]) is not None
    assert {key for key in plan if plan[key] != planned[key]} <= {"architecture", "patch_size"}
    strides = plan["architecture"]["arch_kwargs"]["strides"]
    assert all(edge % 2 ** (len(strides) - 1) == 0 for edge in plan["patch_size"])
    assert repr(planned) == original


@pytest.mark.parametrize(
    ("name", "configuration"), [("smp.Unet", "3d_fullres"), ("primus.S", "2d")]
)
def test_a_network_of_another_dimension_is_not_planned(name, configuration, prepared_dataset):
    planned = prepared_dataset("labels", 1).plans["configurations"][configuration]
    assert replace_architecture(planned, name, "resnet18", None) is None


@pytest.mark.parametrize(
    ("name", "fix"),
    [("smp.Unett", "smp.Unet?"), ("qqqq", "smp.Unet, smp.UnetPlusPlus")],
)
def test_an_unknown_network_is_answered_by_the_nearest(name, fix, prepared_dataset):
    planned = prepared_dataset("labels", 1).plans["configurations"]["2d"]
    with pytest.raises(UserError, match="does not exist") as caught:
        replace_architecture(planned, name, "resnet18", None)
    assert fix in caught.value.fix


def test_the_name_of_plans_contains_the_network_and_its_encoder() -> None:
    assert name_architecture_plans("P", None, "resnet50") == "P"
    assert name_architecture_plans("P", "smp.Unet", "resnet50") == "P_smpUnet_resnet50"
    assert name_architecture_plans("P", "monai.SegResNet", "resnet50") == "P_monaiSegResNet"


def test_nnunets_own_network_is_measured_too(prepared_dataset: Any) -> None:
    planned = prepared_dataset("labels", 1).plans["configurations"]["2d"]
    assert find_adapter(planned["architecture"]["network_class_name"]) is None
    parameters, operations = measure_network_size(planned, 1, 4)
    wider, _ = measure_network_size(planned, 3, 4)
    features = planned["architecture"]["arch_kwargs"]["features_per_stage"][0]
    assert wider - parameters == 2 * features * 9  # the first layer's kernels of 3 x 3
    larger = {**planned, "patch_size": [2 * edge for edge in planned["patch_size"]]}
    assert measure_network_size(larger, 1, 4) == (parameters, 4 * operations)
    with pytest.raises(UserError, match="cannot process"):
        measure_network_size({**planned, "patch_size": [7, 7]}, 1, 4)
