"""Plans are written with every setting, and planned again without losing what was given."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.benchmarking.kept import Kept, StepRate
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.cli.main import main
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning import budget
from semi_nnunet.planning.label_ceiling import MIN_CEILING
from semi_nnunet.raw.layout import CHECKED_FILE
from semi_nnunet.raw.readers import Geometry
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.verify.reports import CaseReport, write_reports
from semi_nnunet.workflows.before_start import examine_dataset
from semi_nnunet.workflows.plan import KEPT, plan_dataset
from tests.warm import warm


@pytest.fixture
def folder(prepared_dataset, tmp_path, monkeypatch) -> Path:
    """The preprocessed phantom, in a folder of the test's own."""
    dataset = prepared_dataset("labels", 1)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    shutil.copytree(dataset.preprocessed, tmp_path / dataset.name)
    return tmp_path / dataset.name


def test_every_setting_of_every_trainer_has_a_row_and_is_in_the_plans(folder):
    planned = plan_dataset(folder.name, settings={"epochs": 7, "2d.seed": 3})
    assert planned.name == "nnUNetPlans" and planned.path == folder / "nnUNetPlans.json"
    content = read_json(planned.path)
    assert content["semi"]["epochs"] == 7 and content["semi"]["2d"]["seed"] == 3
    assert content["semi_planned"]["given"] == {"epochs": 7, "2d": {"seed": 3}}
    assert set(planned.ready) == {"2d", "3d_fullres"} and planned.coarser == ()
    assert {row.trainer for row in planned.rows} >= set(settings_classes())
    assert all(row.reason for row in planned.rows)


def test_settings_are_given_as_values_or_as_they_are_typed(folder):
    settings = {"epochs": 3, "mirror": False, "SemiMeanTeacherTrainer.2d.ema_decay": 0.5}
    plan_dataset(folder.name, name="values", settings=settings)
    words = ["epochs=3", "mirror=false", "SemiMeanTeacherTrainer.2d.ema_decay=0.5"]
    plan_dataset(folder.name, name="words", settings=words)
    values, typed = (read_json(folder / f"{name}.json") for name in ("values", "words"))
    assert values["semi"] == typed["semi"] and values["plans_name"] == "values"
    assert values["configurations"] == typed["configurations"]


def test_pretrained_weights_must_exist_and_get_an_absolute_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (folder / "nnUNetPlans.json").read_bytes()
    for key in ("pretrained", "2d.pretrained", "SemiBaselineTrainer.2d.pretrained"):
        with pytest.raises(UserError, match=r"there is no weights\.pth.*Fix: correct the path"):
            plan_dataset(folder.name, settings={key: "weights.pth"})
    assert (folder / "nnUNetPlans.json").read_bytes() == before
    Path("weights.pth").touch()
    plan_dataset(folder.name, settings={"2d.pretrained": "weights.pth", "pretrained": "pool"})
    semi = read_json(folder / "nnUNetPlans.json")["semi"]
    assert semi["pretrained"] == "pool"
    assert semi["2d"]["pretrained"] == str(tmp_path / "weights.pth")


def test_planning_again_keeps_given_and_edited_settings_until_reset(folder):
    plan_dataset(folder.name, settings={"epochs": 7, "seed": 1})
    plan_dataset(folder.name, settings={"seed": 2})
    content = read_json(folder / "nnUNetPlans.json")
    assert (content["semi"]["epochs"], content["semi"]["seed"]) == (7, 2)
    content["semi"]["momentum"] = 0.5  # by hand
    write_json(folder / "nnUNetPlans.json", content)
    plan_dataset(folder.name)
    semi = read_json(folder / "nnUNetPlans.json")["semi"]
    assert (semi["epochs"], semi["seed"], semi["momentum"]) == (7, 2, 0.5)
    plan_dataset(folder.name, reset=True)
    forgotten = read_json(folder / "nnUNetPlans.json")
    assert forgotten["semi_planned"]["given"] == {}
    assert all(forgotten["semi"].get(key) != semi[key] for key in ("epochs", "momentum"))


def test_settings_of_an_earlier_call_are_marked(folder):
    plan_dataset(folder.name, settings={"epochs": 7, "seed": 1, "2d.momentum": 0.5})
    planned = plan_dataset(folder.name, settings={"seed": 2})
    kept = {(row.setting, row.configuration) for row in planned.rows if row.reason == KEPT}
    assert kept == {("epochs", "2d"), ("epochs", "3d_fullres"), ("momentum", "2d")}
    assert not any(row.reason == KEPT for row in plan_dataset(folder.name, reset=True).rows)


def test_the_length_of_a_training_is_estimated_from_a_benchmark(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    words = ["plan", "-d", folder.name, "-c", "2d", "--set", "epochs=100", "steps_per_epoch=10"]
    assert main(words) == 0
    assert "known after semi_nnunet benchmark" in capsys.readouterr().out
    resources = find_resources(None, jobs=1)
    work = Work(folder.name, "2d", "nnUNetPlans", resources.device, resources.threads, 3)
    rate = StepRate("2026-01-01", step=3.6, loading=0.0, workers=0, start=0.0, case=1.0)
    Kept.of(find_folders(folder.name), work).keep({"SemiUnifiedTrainer": rate})
    assert main(words) == 0
    assert "of SemiUnifiedTrainer here: about " in capsys.readouterr().out


def test_new_plans_do_not_change_the_plans_they_start_from(folder):
    earlier = (folder / "nnUNetPlans.json").read_bytes()
    planned = plan_dataset(folder.name, patch=(16, 16))
    assert planned.name != "nnUNetPlans" and planned.path.parent == folder
    assert (folder / "nnUNetPlans.json").read_bytes() == earlier
    content = read_json(planned.path)
    assert content["plans_name"] == planned.name and content["semi_planned"]["patch"] == [16, 16]
    assert content["semi_planned"]["from"] == "nnUNetPlans"
    assert content["configurations"]["2d"]["patch_size"] == [16, 16]
    again = plan_dataset(folder.name, plans=planned.name, settings={"epochs": 3})  # in place
    planning = read_json(again.path)["semi_planned"]
    assert (planning["from"], planning["patch"]) == ("nnUNetPlans", [16, 16])


def test_a_budget_is_measured_once(folder):
    first = plan_dataset(folder.name, budget="cpu")
    again = plan_dataset(folder.name, budget="cpu", settings={"epochs": 3})
    assert first.name == again.name == "nnUNetPlans_cpu"
    assert (first.keeps_sizes, again.keeps_sizes) == (False, True)
    assert first.networks == again.networks
    assert read_json(again.path)["semi"]["epochs"] == 3
    assert set(first.ready) | set(first.coarser) == {"2d", "3d_fullres"}


def test_a_spacing_is_planned_by_hand(folder):
    earlier = read_json(folder / "nnUNetPlans.json")["configurations"]["2d"]
    spacing = [2 * edge for edge in earlier["spacing"]]
    planned = plan_dataset(folder.name, spacing=spacing, settings={"epochs": 2})
    name = f"nnUNetPlans_{spacing[0]:g}x{spacing[1]:g}mm".replace(".", "p")
    dataset = read_json(folder / f"{name}.json")
    assert planned.name == name and dataset["semi_planned"]["spacing"] == spacing
    assert dataset["configurations"]["2d"]["spacing"] == spacing
    assert dataset["configurations"]["2d"]["data_identifier"] != earlier["data_identifier"]
    assert planned.coarser == ("2d",)  # needs preprocessing again
    small = plan_dataset(folder.name, spacing=spacing, budget="cpu")
    of_budget = read_json(small.path)["configurations"]["2d"]
    assert of_budget["spacing"] == spacing  # nothing else is chosen
    assert len(of_budget["architecture"]["arch_kwargs"]["features_per_stage"]) >= 3


def test_no_budget_makes_images_coarser_than_the_labels_allow(folder, monkeypatch):
    monkeypatch.setattr(
        budget,
        "CPU_SIZES",
        {2: budget.NetworkSize(8, 12 * 12, 2), 3: budget.NetworkSize(8, 8**3, 2)},
    )
    monkeypatch.setattr("semi_nnunet.planning.plan.CPU_SIZES", budget.CPU_SIZES)
    planned = plan_dataset(folder.name, budget="cpu")
    for facts in planned.networks:
        assert min(facts.label_ceiling.values()) >= MIN_CEILING
        assert "a Dice of" in str(facts)
    monkeypatch.setattr("semi_nnunet.planning.label_ceiling.MIN_CEILING", 0.0)
    (folder / f"{planned.name}.json").unlink()
    careless = plan_dataset(folder.name, budget="cpu").networks
    assert min(min(facts.label_ceiling.values()) for facts in careless) < MIN_CEILING


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a__b"}, r"--new-plans .*got 'a__b'"),
        ({"plans": "nnUNetPlan"}, r"nnUNetPlan\.json does not exist\. Fix: .* nnUNetPlans"),
        ({"trainers": ["SemiMeanTecherTrainer"]}, "'SemiMeanTeacherTrainer'"),
        ({"settings": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"settings": {"epochs": 0}}, r"must be in \[1, inf\), got 0"),
        ({"settings": ["epochs"]}, "KEY=VALUE.* got 'epochs'"),
        ({"configurations": ["2D"]}, r"no configuration 2D\. Fix: choose from 2d, 3d_fullres"),
        ({"budget": "soon"}, "--budget must be .*got 'soon'"),
        ({"architecture": "smp.Unett"}, r"smp\.Unett does not exist\. Fix: did you mean smp\.Unet"),
        ({"budget": "1", "device": "gpu"}, "--device gpu cannot .*Fix: --device cpu"),
        ({"patch": (8, 8, 8, 8)}, r"--patch must have .*got \[8, 8, 8, 8\]"),
        ({"spacing": (1.0,)}, r"--spacing must have a number for each axis.*got \[1\.0\]"),
    ],
)
def test_unknown_options_are_refused_and_nothing_is_written(folder, options, message):
    earlier = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    with pytest.raises(UserError, match=message):
        plan_dataset(folder.name, **options)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.json")} == earlier


def test_two_calls_at_once_keep_the_settings_of_both(folder):
    code = "import semi_nnunet, sys; semi_nnunet.plan(sys.argv[1], settings=[sys.argv[2]])"
    given = {"epochs": 7, "seed": 3, "steps_per_epoch": 11}
    commands = [
        warm([sys.executable, "-c", code, folder.name, f"{key}={value}"])
        for key, value in given.items()
    ]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    assert read_json(folder / "nnUNetPlans.json")["semi_planned"]["given"] == given


def test_plan_and_doctor_name_the_domains_and_the_one_without_a_label(folder, capsys):
    assert plan_dataset(folder.name).domains == ()
    description = read_json(folder / "dataset.json")
    channels = len(description["channel_names"])
    write_json(folder / "dataset.json", {**description, "domain": "north|south"})
    place = Geometry((4, 20, 20), (2.0, 1.0, 1.0), None, None, "LPS")
    quantiles = ((0.0, 1.0, 2.0, 3.0, 4.0),) * channels
    cases = [("north_1", "labelled"), ("north_2", "labelled"), ("south_1", "unlabelled")]
    reports = [CaseReport(case, subset, case, (), place, quantiles) for case, subset in cases]
    write_reports(folder / CHECKED_FILE, reports)
    assert main(["plan", "-d", folder.name]) == 0
    (north, south) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("domain ")
    )
    assert north.startswith("domain north: 2 labelled, 0 unlabelled") and "NO LABEL" not in north
    assert south.startswith("domain south: 0 labelled, 1 unlabelled") and "NO LABEL" in south
    findings, _ = examine_dataset(folder.name)
    assert [f.topic for f in findings if "NO LABEL" in f.state] == ["domain south"]
