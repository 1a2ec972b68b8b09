"""The background of the report: data, plans, settings, commands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.reporting.background import (
    collect_background,
    collect_method_settings,
    describe_methods,
    describe_pool,
    describe_trainer,
    format_fingerprint,
    format_json_value,
    list_given_settings,
    list_plan_facts,
    list_planning_commands,
    list_report_commands,
    list_versions,
)
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.settings.assignments import parse_assignments
from semi_nnunet.util.files import write_json
from tests.report.results_tree import BASE, OURS
from tests.runs.parsing import parse_command


def test_every_trainer_has_a_description():
    assert "Tarvainen" in describe_trainer(OURS)
    for stock in ("nnUNetTrainer", "nnUNetTrainer_5epochs"):
        assert describe_trainer(stock).startswith(f"{stock}: nnU-Net's own trainer")
    assert describe_trainer("MyOwnTrainer") == "MyOwnTrainer"  # in nnUNet_extTrainer, or deleted


def test_numbers_of_used_and_selected_images_are_shown(tmp_path):
    folders = Folders(tmp_path, tmp_path, tmp_path)
    used = [{"cases": {"unlabelled": ["u"] * number}} for number in (8, 3, 8)]
    assert describe_pool(folders, [{}]) == ""
    assert describe_pool(folders, used[::2]) == "Trainings started with 8 unlabelled images."
    write_json(tmp_path / "semi_selected.json", {"score": "uncertainty", "cases": ["u"] * 3})
    sentences = describe_pool(folders, used)
    for part in (
        "3 to 8 unlabelled images",
        "semi_nnunet select (--score uncertainty)",
        "3 images",
    ):
        assert part in sentences


def test_pictures_have_no_third_axis():
    """nnU-Net gives it a spacing of 999."""
    picture = {"spacings": [[999, 1, 1], [999.0, 0.5, 0.5]], "shapes_after_crop": [[1, 64, 80]] * 2}
    assert dict(format_fingerprint(picture)) == {
        "shape, median": "1 x 64 x 80",
        "spacing (mm), median": "0.75 x 0.75 (0.5 x 0.5 to 1 x 1)",
    }
    volume = {"spacings": [[3.0, 1.0, 1.0]]}
    assert dict(format_fingerprint(volume)) == {"spacing (mm), median": "3 x 1 x 1"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([64, 80], "64 x 80"), ([], "none"), (0.1 + 0.2, "0.3"), (1e-7, "1e-07"), (True, "true"),
        (None, "null"), ("cosine", "cosine"), ({"a": 1}, '{"a": 1}'), ([[1, 2], [3]], "1 x 2 x 3"),
    ],
)  # fmt: skip
def test_values_of_json_are_readable(value, text):
    assert format_json_value(value) == text


def test_inherited_values_of_a_configuration_are_shown():
    network = {"network_class_name": "a.b.UNet", "arch_kwargs": {"features_per_stage": [8, 16]}}
    plans = {
        "configurations": {
            "3d": {"patch_size": [8, 8, 8], "batch_size": 2, "architecture": network},
            "low": {"inherits_from": "3d", "spacing": [2.0, 1.0, 1.0]},
            "lowest": {"inherits_from": "low", "batch_size": 4},
        }
    }
    assert dict(list_plan_facts(plans, "lowest")) == {
        "patch size": "8 x 8 x 8", "batch size": "4", "spacing": "2 x 1 x 1",
        "network": "UNet, features 8 x 16",
    }  # fmt: skip
    assert list_plan_facts(plans, "gone") == []


def job(trainer: str, seed: int = 0, fold: str = "0", configuration: str = "2d") -> Job:
    plans = f"nnUNetPlans_seed{seed}" if seed else "nnUNetPlans"
    folders = Folders(Path("raw/Dataset007_Seven"), *[Path("there/Dataset007_Seven")] * 2)
    return Job(folders, trainer, configuration, fold, seed, plans)


def test_settings_that_differ_between_the_trainings_of_a_method_are_named():
    def record(**values):
        return {"settings": {k: {"value": v, "reason": f"as {k}"} for k, v in values.items()}}

    jobs = [job(OURS), job(OURS, 1), job(OURS, 2), job("nnUNetTrainer"), job(BASE)]
    records = [
        record(seed=0, epochs=10), record(seed=1, epochs=10), record(seed=2), {}, record(seed=0)
    ]  # fmt: skip
    ours, base = collect_method_settings(jobs, records)
    assert ours.name == f"{OURS} 2d" and base.note == ""
    assert ours.rows == [("seed", "0", "as seed"), ("epochs", "10", "as epochs")]
    assert ours.note.endswith(": seed, epochs")


def test_every_software_version_is_listed():
    records = [{"torch": "2.4"}, {}, {"torch": "2.1", "python": "3.11"}, {"torch": "2.4"}]
    assert list_versions(records) == [
        ("torch", "2.1, 2.4"), ("python", "3.11"),
        ("this report", f"semi_nnunet {semi_nnunet.__version__}"),
    ]  # fmt: skip


def test_settings_are_shown_as_they_can_be_typed():
    settings = {"epochs": 3, "2d": {"mirror": False}, OURS: {"2d": {"views": ["a", "b"]}}, "x": "y"}
    words = list(list_given_settings(settings))
    assert words == ["epochs=3", "2d.mirror=false", f'{OURS}.2d.views=["a", "b"]', "x=y"]
    assert parse_assignments(words) == settings


def test_the_commands_repeat_the_same_trainings(tmp_path):
    jobs = [
        job(trainer, seed, fold, configuration)
        for trainer, configuration in ((BASE, "2d"), (OURS, "2d"), (OURS, "3d_fullres"))
        for seed in (0, 1)
        for fold in ("0", "1")
        if configuration == "2d" or (seed, fold) == (0, "1")
    ]
    lines = [line.split() for line in list_report_commands(jobs[0].folders, "nnUNetPlans", jobs)]
    assert [words[1] for words in lines if words[0] == "semi_nnunet"] == [
        "preprocess", "crossval", "crossval", "compare", "report",
    ]  # fmt: skip
    repeated = set()
    for words in lines:
        if words[1] == "crossval":
            parsed = parse_command(words)
            assert parsed.plans == "nnUNetPlans"
            repeated |= {
                (trainer, configuration, fold, seed)
                for trainer in parsed.trainers
                for configuration in parsed.configurations
                for fold in parsed.folds
                for seed in range(parsed.seeds)
            }
    assert repeated == {(j.trainer, j.configuration, j.fold, j.seed) for j in jobs}
    trained = [words[2:] for words in lines if words[0] == "nnUNetv2_train"]
    assert len(trained) == len(jobs) and {words[-1] for words in trained} == {
        "nnUNetPlans", "nnUNetPlans_seed1",
    }  # fmt: skip


def test_a_command_names_every_option_that_made_the_plans(tmp_path):
    made = {
        "from": "nnUNetPlans", "spacing": [1.0, 1.5], "architecture": "smp.Unet",
        "encoder": "resnet18", "weights": "imagenet", "given": {"epochs": 3},
    }  # fmt: skip
    write_json(tmp_path / "new.json", {"semi_planned": made})
    _, command = list_planning_commands(Folders(tmp_path, tmp_path, tmp_path), "new", ["2d"])
    parsed = parse_command(shlex.split(command))
    assert parsed.new_plans == "new" and parsed.spacing == [1.0, 1.5]
    assert (parsed.encoder, parsed.encoder_weights) == ("resnet18", "imagenet")


def test_the_background_is_collected_and_missing_files_are_left_out(tree, tmp_path):
    folders = Folders(tree.raw, tree.preprocessed, tree.results)
    collected = collect_background(folders, "nnUNetPlans", find_jobs(folders, "nnUNetPlans"))
    data = dict(collected.data)
    assert data["labelled cases"] == data["test cases"] == "7" and data["unlabelled cases"] == "0"
    assert data["labels"] == "background 0; liver 1; tumour 2" and data["channels"] == "CT"
    assert [name for name, _ in collected.plans] == ["2d"] and len(collected.settings) == 2
    nothing = collect_background(
        Folders(tmp_path / "a", tmp_path / "b", tmp_path / "c"), "gone", []
    )
    assert nothing.data == [("data set", "b")] and nothing.plans == nothing.settings == []


def test_every_method_is_described_once():
    methods = describe_methods([OURS, BASE, OURS])
    assert [name for name, _ in methods] == ["Mean Teacher", "Baseline"]
    assert all(
        text.startswith(trainer) for (_, text), trainer in zip(methods, (OURS, BASE), strict=True)
    )
