"""Verbs that are given the folder of a hostile model refuse it, and execute and follow nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.cli.main import main
from semi_nnunet.util.files import read_json, write_json
from tests.deploy.test_descriptions import make_hostile_architecture
from tests.deploy.test_trained import add_gift

DECEIVING = "\x1b]0;evil\x07\u202e\n# forged"  # a terminal's title, a mark of direction, a heading
Attack = Callable[[Path, Path], object]  # of a model; in a folder where nothing may appear


def edited(name: str, edit: Callable[[Any], object]) -> Attack:
    def attack(model: Path, folder: Path) -> None:
        content = read_json(model / name)
        edit(content)
        write_json(model / name, content)

    return attack


def plans(key: str, value: Any) -> Attack:
    return edited("plans.json", lambda content: content.update({key: value}))


def configuration(key: str, value: Any) -> Attack:
    return edited(
        "plans.json", lambda content: content["configurations"]["2d"].update({key: value})
    )


def architecture(key: str, value: Any) -> Attack:
    def edit(content: Any) -> None:
        content["configurations"]["2d"]["architecture"]["arch_kwargs"][key] = value

    return edited("plans.json", edit)


def description(key: str, value: Any) -> Attack:
    return edited("dataset.json", lambda content: content.update({key: value}))


def checkpoint(edit: Callable[[dict[str, Any]], object]) -> Attack:
    def attack(model: Path, folder: Path) -> None:
        for path in model.glob("fold_*/checkpoint_final.pth"):
            content = torch.load(path, weights_only=True)
            edit(content)
            torch.save(content, path)

    return attack


def program(model: Path, folder: Path) -> None:
    for path in model.glob("fold_*/checkpoint_final.pth"):
        add_gift(path, folder / "evil")


def foreign_network(model: Path, folder: Path) -> None:
    (folder / "hub").mkdir(exist_ok=True)
    hostile = make_hostile_architecture(folder / "hub")
    configuration("architecture", hostile)(model, folder)


def link(name: str, target: str) -> Attack:
    def attack(model: Path, folder: Path) -> None:
        (model / name).unlink()
        (model / name).symlink_to(target)

    return attack


def pipe(name: str) -> Attack:
    def attack(model: Path, folder: Path) -> None:
        (model / name).unlink()
        os.mkfifo(model / name)

    return attack


def huge(content: dict[str, Any]) -> None:
    """Give a tensor of one number a shape of 10 TB."""
    weights = content["network_weights"]
    weights[next(iter(weights))] = torch.zeros(1).expand(10**6, 10**7)


ATTACKS: dict[str, Attack] = {
    "a program in the checkpoint": program,
    "a foreign network": foreign_network,
    "a foreign layer": architecture("conv_op", "os.system"),
    "many layers": architecture("n_conv_per_stage", 10**7),
    "many features": architecture("features_per_stage", [10**9] * 3),
    "large kernels": architecture("kernel_sizes", [[10**6, 10**6]] * 3),
    "strides of 0": architecture("strides", [[0, 0]] * 3),
    "a huge patch": configuration("patch_size", [10**7, 10**7]),
    "a negative patch": configuration("patch_size", [-5, 0]),
    "a patch of text": configuration("patch_size", "large"),
    "a spacing of 0": configuration("spacing", [0, 0]),
    "another folder": configuration("data_identifier", "../../evil"),
    "another stage": configuration("previous_stage", "../../evil"),
    "a circle": configuration("inherits_from", "2d"),
    "no configuration": plans("configurations", {"2d": None}),
    "an unknown class": plans("label_manager", "os.system"),
    "a path as data set": plans("dataset_name", "../../evil"),
    "a path as plans": plans("plans_name", "../../evil"),
    "a deceiving name": plans("plans_name", DECEIVING),
    "axes": plans("transpose_forward", [9, 9, 9]),
    "a path as ending": description("file_ending", "/../../evil"),
    "a deceiving ending": description("file_ending", f".nii.gz{DECEIVING}"),
    "no labels": description("labels", []),
    "many labels": description("labels", {"background": 0, "organ": 10**12}),
    "a deceiving label": description("labels", {"background": 0, DECEIVING: 1}),
    "a deceiving channel": description("channel_names", {"0": DECEIVING}),
    "an order of text": description("regions_class_order", "x"),
    "a path as trainer": checkpoint(lambda content: content.update(trainer_name="../../evil")),
    "no epoch": checkpoint(lambda content: content.update(current_epoch="many")),
    "text for our values": checkpoint(lambda content: content.update(semi="x")),
    "other networks": checkpoint(lambda content: content["semi"].update(averaged_with=[3] * 9)),
    "weights of nothing": checkpoint(
        lambda content: content["semi"].update(averaged_with=[{"w": torch.zeros(1)}])
    ),
    "huge weights": checkpoint(huge),
    "a link to a file": link("dataset.json", "/etc/passwd"),
    "a pipe": pipe("plans.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", ["tune", "distil", "package", "export", "select", "pseudo-dataset"]
)
def test_no_verb_follows_a_hostile_model(
    verb: str,
    model: Path,
    prepared_dataset: Any,
    tmp_path: Path,
    capsys: Any,
    record_property: Callable[[str, object], None],
) -> None:
    dataset, kept, out = prepared_dataset("labels", 1), tmp_path / "kept", tmp_path / "out"
    which = ["-d", dataset.number]
    words = {
        "tune": ["-m", model, "--device", "cpu"],
        "distil": ["-m", model, "--device", "cpu"],
        "package": ["-m", model, "-o", out, "--device", "cpu"],
        "export": [*which, "-c", "2d", "-tr", "SemiCPSTrainer", "-o", out],
        "select": [*which, "-m", model, "--device", "cpu"],
        "pseudo-dataset": [*which, "--new-id", 988, "-m", model, "--device", "cpu"],
    }[verb]
    shutil.copytree(model, kept)
    followed = []
    for name, attack in ATTACKS.items():
        shutil.rmtree(model)
        shutil.copytree(kept, model)
        attack(model, tmp_path)
        code = main([verb, *map(str, words)])
        captured = capsys.readouterr()
        said = captured.out + captured.err
        refused = code == 2 and "Traceback" not in said and "Fix: " in said
        plain = not {"\x1b", "\x07", "\u202e"} & set(said) and "\n# forged" not in said
        if not (refused and plain) or out.exists() or list(tmp_path.rglob("*evil*")):
            followed.append(f"{name}: {code} {said[-300:]}")
    record_property("injected", len(ATTACKS))
    record_property("lost", len(followed))
    assert followed == []
