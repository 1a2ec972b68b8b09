"""Trainers use the settings that ``plan`` writes, and networks for a budget run."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from semi_nnunet.cli.main import main
from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.planning.budget import COARSENING_FACTOR, SHOWN_SHARE
from semi_nnunet.planning.label_ceiling import LabelCeiling
from semi_nnunet.planning.plan import apply_budget, find_budget_sizes, plan_semi
from semi_nnunet.planning.properties import collect_properties, resolve_settings
from semi_nnunet.reporting.background import list_planning_commands
from semi_nnunet.runs.folders import Folders
from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.util.errors import UserError

CPU = torch.device("cpu")
TRAINERS = {name: trainer.settings_class for name, trainer in trainer_classes().items()}
ASSIGNMENTS = [
    [],
    ["epochs=10", "2d.epochs=20", "seed=3"],
    ["SemiMeanTeacherTrainer.epochs=10", "SemiMeanTeacherTrainer.2d.ema_decay=0.5"],
    ["SemiMeanTeacherTrainer.labelled_batch_size=7", "2d.ramp_up_steps=5"],
]


@pytest.mark.parametrize("assignments", ASSIGNMENTS)
def test_the_written_plans_give_the_settings_that_were_planned(
    assignments: list[str], phantom: Any
) -> None:
    user_layers = parse_assignments(assignments)
    folder, description = phantom.preprocessed, phantom.dataset_json
    semi, _ = plan_semi(phantom.plans, description, folder, TRAINERS, user_layers)
    for configuration in phantom.plans["configurations"]:
        properties = collect_properties(phantom.plans, configuration, description, folder)
        for trainer, settings_class in TRAINERS.items():
            planned, written = (
                resolve_settings(
                    settings_class, trainer, configuration, {**phantom.plans, "semi": s}, properties
                )
                for s in (user_layers, json.loads(json.dumps(semi)))
            )
            assert written.settings == planned.settings


def test_wrong_values_of_all_trainers_are_named_together(phantom: Any) -> None:
    values = ["class_weights=3", "SemiCPSTrainer.deploy=third", "SemiDistillationTrainer.models=m"]
    with pytest.raises(UserError) as caught:
        plan_semi(
            phantom.plans, phantom.dataset_json, phantom.preprocessed, TRAINERS,
            parse_assignments(values),
        )  # fmt: skip
    fixes = {problem.where: problem.fix for problem in caught.value.problems}
    assert len(fixes) == len(values)
    assert 'models=["m"]' in fixes["plans['semi']['SemiDistillationTrainer']['models']"]


def test_the_command_writes_plans_of_another_name(
    phantom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "plan -d 901 --new-plans nnUNetPlans_x --set seed=9 2d.epochs=5 -c 2d"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert "use it with -p nnUNetPlans_x" in out and "3d_fullres" not in out
    plans = phantom.load_plans("nnUNetPlans_x")
    assert plans["plans_name"] == "nnUNetPlans_x"
    assert plans["semi"]["seed"] == 9 and plans["semi"]["2d"]["epochs"] == 5
    assert "semi" not in phantom.plans


def build(configuration: dict[str, Any], heads: int = 4) -> torch.nn.Module:
    architecture = configuration["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        heads,
        deep_supervision=True,
    )


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_the_cpu_budget_gives_a_smaller_network_that_runs(configuration: str, phantom: Any) -> None:
    sizes = find_budget_sizes(phantom.plans, phantom.dataset_json, "cpu", CPU)
    plans = apply_budget(phantom.plans, sizes, "small")
    small, full = (p["configurations"][configuration] for p in (plans, phantom.plans))
    count = [sum(p.numel() for p in build(c).parameters()) for c in (small, full)]
    assert count[0] < count[1] / 2
    assert small["spacing"] == full["spacing"]
    assert small["data_identifier"] == full["data_identifier"]
    heads = build(small)(torch.zeros(1, 1, *small["patch_size"]))
    assert list(heads[0].shape[2:]) == small["patch_size"]


def test_planning_again_for_the_same_seconds_measures_nothing(
    phantom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = [13.0]

    def features_by_speed(configuration: dict[str, Any], *_: Any) -> float:
        features = configuration["architecture"]["arch_kwargs"]["features_per_stage"][0]
        return float(features) / speed[0]

    monkeypatch.setattr("semi_nnunet.planning.budget.measure_step_seconds", features_by_speed)

    def features(*words: str) -> int:
        assert main(["plan", "-d", "901", "--budget", "1", *words]) == 0
        plan = phantom.load_plans("nnUNetPlans_1")["configurations"]["2d"]
        return plan["architecture"]["arch_kwargs"]["features_per_stage"][0]

    assert features() == 12
    speed[0] = 5.0  # the machine is busy
    assert features("--set", "mirror=false") == 12
    assert main(["plan", "-d", "901", "-p", "nnUNetPlans_1", "--set", "epochs=7"]) == 0  # in place
    assert features() == 12
    assert features("--reset") == 12  # drops the settings, not the sizes
    (phantom.preprocessed / "nnUNetPlans_1.json").unlink()
    assert features() == 4


def test_the_budget_command_keeps_the_original_plans(phantom: Any) -> None:
    assert main(["plan", "-d", "901", "--budget", "cpu"]) == 0
    plans = phantom.load_plans("nnUNetPlans_cpu")
    assert plans["semi"]["epochs"] == 24
    assert Path(phantom.preprocessed / "nnUNetPlans.json").is_file()
    assert main(["plan", "-d", "901", "--budget", "cpu", "--set", "mirror=false"]) == 0
    assert main(["plan", "-d", "901", "--budget", "cpu"]) == 0  # keeps the given setting
    assert phantom.load_plans("nnUNetPlans_cpu")["semi"]["mirror"] is False


def test_planning_again_keeps_given_and_edited_settings(phantom) -> None:
    arguments = ["plan", "-d", "901", "--new-plans", "nnUNetPlans_again"]
    path = phantom.preprocessed / "nnUNetPlans_again.json"
    assert main([*arguments, "--budget", "cpu", "--set", "mirror=false", "epochs=7"]) == 0
    plans = json.loads(path.read_text())
    plans["semi"]["2d"]["ramp_up_steps"] = 3  # by hand
    path.write_text(json.dumps(plans))
    again = ["plan", "-d", "901", "-p", "nnUNetPlans_again", "--new-plans", "nnUNetPlans_seed1"]
    assert main([*again, "--set", "seed=1", "SemiMeanTeacherTrainer.ema_decay=0.5"]) == 0
    seeded = phantom.load_plans("nnUNetPlans_seed1")
    settings = load_settings(seeded, phantom)
    assert (settings.mirror, settings.epochs, settings.steps_per_epoch) == (False, 7, 50)
    assert (settings.seed, settings.ramp_up_steps, settings.ema_decay) == (1, 3, 0.5)
    assert main([*again, "--reset"]) == 0
    reset = load_settings(phantom.load_plans("nnUNetPlans_seed1"), phantom)
    assert (reset.mirror, reset.epochs, reset.seed) == (True, 1000, 0)


def load_settings(plans: dict[str, Any], phantom) -> Any:
    properties = collect_properties(plans, "2d", phantom.dataset_json, phantom.preprocessed)
    name = "SemiMeanTeacherTrainer"
    return resolve_settings(TRAINERS[name], name, "2d", plans, properties).settings


@pytest.mark.parametrize(
    "configuration, patch, stages", [("2d", [48, 80], 4), ("3d_fullres", [8, 32, 64], 4)]
)
def test_a_given_patch_has_the_network_that_nnunet_plans_for_it(
    configuration: str, patch: list[int], stages: int, phantom: Any
) -> None:
    words = ["plan", "-d", phantom.name, "-c", configuration, "--patch", *map(str, patch)]
    assert main([*words, "--set", "labelled_batch_size=3"]) == 0
    name = f"nnUNetPlans_{'x'.join(map(str, patch))}"
    plans = json.loads((phantom.preprocessed / f"{name}.json").read_text())
    original = phantom.plans["configurations"]
    new, old = plans["configurations"][configuration], original[configuration]
    assert new["patch_size"] == patch and new["spacing"] == old["spacing"]
    assert new["data_identifier"] == old["data_identifier"]
    arch, old_arch = (plan["architecture"]["arch_kwargs"] for plan in (new, old))
    assert arch["n_stages"] == len(arch["features_per_stage"]) == stages
    common = min(stages, old_arch["n_stages"])
    assert arch["features_per_stage"][:common] == old_arch["features_per_stage"][:common]
    assert sorted(arch["features_per_stage"]) == arch["features_per_stage"]
    unchanged = {k for k in original if len(original[k].get("patch_size", [])) != len(patch)}
    assert all(plans["configurations"][key] == original[key] for key in unchanged)
    x = torch.zeros(1, 1, *patch)
    assert build(new)(x)[0].shape[2:] == x.shape[2:]
    assert plans["semi"]["labelled_batch_size"] == 3


def test_images_of_a_budget_are_as_coarse_as_its_patch_needs(
    phantom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabelCeiling, "is_kept_at", lambda *_: True)  # otherwise less coarse
    assert main(["plan", "-d", phantom.name, "--budget", "cpu", "--patch", "16", "16"]) == 0
    plans = phantom.load_plans("nnUNetPlans_cpu_16x16")
    small, old = (p["configurations"]["2d"] for p in (plans, phantom.plans))
    assert small["patch_size"] == [16, 16] and small["batch_size"] == 12
    assert small["spacing"] > old["spacing"] and small["data_identifier"] != old["data_identifier"]
    median = old["median_image_size_in_voxels"][-2:]
    sizes = zip(median, old["spacing"], small["spacing"], strict=True)
    edges = [edge * fine / coarse for edge, fine, coarse in sizes]  # not rounded to voxels
    assert math.prod(edges) <= 16 * 16 / SHOWN_SHARE * COARSENING_FACTOR**2
    name = "nnUNetPlans_cpu"
    assert main(["plan", "-d", phantom.name, "--budget", "cpu"]) == 0
    in_3d, usual = (p["configurations"]["3d_fullres"] for p in (plans, phantom.load_plans(name)))
    assert in_3d == usual


@pytest.mark.parametrize(
    "patch, key_word",
    [
        (["8", "32", "60"], "--patch 8 32 64"),
        (["32"], "2d: 2, 3d_fullres: 3"),
        (["8", "8"], "3 resolutions, got 2"),
        (["0", "8"], "positive"),
    ],
)
def test_invalid_patches_are_refused(
    patch: list[str], key_word: str, phantom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "-d", phantom.name, "--patch", *patch]) == 2
    assert key_word in capsys.readouterr().err


def test_a_report_lists_the_commands_that_recreate_the_plans(
    phantom: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for plans that were made from other new plans."""
    command = ["plan", "-d", phantom.name, "--budget", "cpu", "--patch", "16", "16"]
    assert (
        main([*command, "--new-plans", "first", "--set", "mirror=false", "class_weights=[1, 2]"])
        == 0
    )
    words = ["plan", "-d", phantom.name, "-p", "first", "--new-plans", "second", "--set"]
    assert main([*words, "SemiMeanTeacherTrainer.2d.ema_decay=0.5", "labelled_share=None"]) == 0
    folders = Folders(phantom.raw, phantom.preprocessed, phantom.raw)
    preprocessing, *planned = list_planning_commands(folders, "second", ["2d"])
    assert preprocessing == f"semi_nnunet preprocess -d {phantom.name} -p nnUNetPlans -c 2d"
    paths = [phantom.preprocessed / f"{name}.json" for name in ("first", "second")]
    contents = [path.read_text() for path in paths]
    for path in paths:
        path.unlink()
    for line in planned:
        assert main(shlex.split(line)[1:]) == 0
    assert [path.read_text() for path in paths] == contents
    assert list_planning_commands(folders, "nnUNetPlans", ["2d"]) == []  # nnU-Net's own
