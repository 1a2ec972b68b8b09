"""A fold is trained by nnU-Net in this process; what does not exist is refused before."""

from __future__ import annotations

import inspect
import json
import os
import zipfile

import pytest
import torch
from nnunetv2.run import run_training as module

from semi_nnunet.cli.main import main
from semi_nnunet.discovery.register import EXTERNAL, trainer_folders
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.verbs.train import train
from tests.runs.jobs import BASE, OURS, fake_job


@pytest.mark.parametrize("folder", [None, "a_users"])
def test_the_users_own_folder_of_trainers_is_restored_after_an_error(folders, monkeypatch, folder):
    monkeypatch.delenv(EXTERNAL, raising=False)
    if folder is not None:
        monkeypatch.setenv(EXTERNAL, folder)

    def fail(*_: object, **__: object) -> None:
        assert os.environ[EXTERNAL] == trainer_folders()
        raise OSError("the disk is full")

    monkeypatch.setattr(module, "run_training", fail)
    with pytest.raises(OSError):
        train(folders.raw.name, "2d", "0", BASE, plans="tiny", device="cpu")
    assert os.environ.get(EXTERNAL) == folder


@pytest.fixture
def requests(monkeypatch) -> list[dict[str, object]]:
    """What nnU-Net's own entry point was asked for; it trains nothing."""
    requests_found: list[dict[str, object]] = []
    signature = inspect.signature(module.run_training)

    def note(*words: object, **options: object) -> None:
        bound = signature.bind(*words, **options)
        bound.apply_defaults()
        requests_found.append({**bound.arguments, "trainers": os.environ[EXTERNAL]})

    monkeypatch.setattr(module, "run_training", note)
    return requests_found


def test_nnunet_is_asked_for_the_fold_and_finds_our_trainers(folders, requests):
    job = fake_job(folders, BASE)
    for number in (folders.raw.name, folders.raw.name[7:10]):
        assert train(number, "2d", "0", BASE, plans="tiny", device="cpu") == job.folder
    first, second = requests
    assert first == second and first["trainers"] == trainer_folders()
    expected = {
        "dataset_name_or_id": folders.raw.name, "configuration": "2d", "fold": "0",
        "trainer_class_name": BASE, "plans_identifier": "tiny", "pretrained_weights": None,
        "num_gpus": 1, "export_validation_probabilities": False, "continue_training": False,
        "only_run_validation": False, "device": torch.device("cpu"),
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected


def test_options_of_a_training_reach_nnunet(folders, requests, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save({"network_weights": {}}, weights)
    options = {"resume": True, "npz": True, "gpus": 2, "pretrained_weights": weights}
    train(folders.raw.name, "2d", "all", OURS, plans="tiny", device="cpu", **options)
    (request,) = requests
    assert (request["fold"], request["trainer_class_name"], request["num_gpus"]) == ("all", OURS, 2)
    assert request["continue_training"] is request["export_validation_probabilities"] is True
    assert request["pretrained_weights"] == str(weights)


def test_all_unknown_names_of_a_training_are_reported_at_once(folders):
    with pytest.raises(UserError) as caught:
        train(folders.raw.name, "2D", "9", "SemiMeanTecherTrainer", plans="tiny", device="cpu")
    assert [problem.where.split()[0] for problem in caught.value.problems] == [
        "trainer", "configuration", "fold",
    ]  # fmt: skip
    assert not folders.results.exists()


def test_a_device_that_is_not_there_is_refused(folders, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--device cuda needs"):
        train(folders.raw.name, "2d", "0", BASE, plans="tiny", device="cuda")
    assert not folders.results.exists()


def test_pretrained_weights_that_are_none_are_refused_before_the_training(folders, tmp_path):
    weights = tmp_path / "weights.pth"
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("a", "no weights")
    for path in (weights, tmp_path / "gone.pth"):
        with pytest.raises(UserError, match=path.name):
            train(folders.raw.name, "2d", "0", BASE, plans="tiny", device="cpu",
                  pretrained_weights=path)  # fmt: skip
    assert not folders.results.exists()


def test_the_verb_takes_the_words_of_nnunets_own_command(folders, requests, capsys):
    words = [folders.raw.name, "2d", "all", "-tr", OURS, "-p", "tiny", "-device", "cpu"]
    assert main(["train", *words, "--c", "--npz", "-num_gpus", "2"]) == 0
    message = capsys.readouterr().out
    assert "next: nnUNetv2_predict -d" in message and message.endswith(
        " -o PREDICTIONS -device cpu\n"
    )
    assert main(["train", *words, "--val"]) == 0
    first, second = requests
    assert first["continue_training"] is first["export_validation_probabilities"] is True
    assert (first["num_gpus"], second["only_run_validation"]) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "tyny"], "tyny"),
        (["-device", "cuda"], "needs a GPU"),
        (["-num_gpus", "0"], "-num_gpus"),
        (["-pretrained_weights", "gone.pth"], "gone.pth"),
    ],
)
def test_a_mistake_is_reported_in_at_most_two_lines(folders, monkeypatch, capsys, words, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    options = {"-p": "tiny", "-device": "cpu", words[0]: words[1]}
    words = [word for option in options.items() for word in option]
    assert main(["train", folders.raw.name, "2d", "0", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and "Fix:" in err and len(err.splitlines()) <= 2
    assert not folders.results.exists()


def test_an_unprepared_configuration_is_reported_with_the_command(folders, capsys):
    plans = json.loads((folders.preprocessed / "tiny.json").read_text())
    plans["configurations"]["2d"]["data_identifier"] = "elsewhere"
    write_json(folders.preprocessed / "tiny.json", plans)
    assert main(["train", folders.raw.name, "2d", "0", "-p", "tiny", "-device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert "2d is not preprocessed. Fix: semi_nnunet preprocess -d" in err
    assert len(err.splitlines()) == 2 and not folders.results.exists()


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "SemiBaselineTrainer"])
@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_cut_arrays_are_named_before_the_training(folders, capsys, trainer, ending):
    identifier = json.loads((folders.preprocessed / "tiny.json").read_text())["configurations"][
        "2d"
    ]
    arrays = folders.preprocessed / identifier["data_identifier"]
    path = next(path for path in sorted(arrays.glob(f"*{ending}")))
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:20])
    words = ["-p", "tiny", "-tr", trainer, "-device", "cpu"]
    try:
        assert main(["train", folders.raw.name, "2d", "0", *words]) == 2
    finally:  # other tests share the arrays
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    err = capsys.readouterr().err
    case = path.name.removesuffix(ending)
    assert case in err and "cut" in err and "semi_nnunet preprocess" in err
