"""A training knows which images and labels it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from semi_nnunet.preprocessing.manifest import Manifest, get_manifest_file
from semi_nnunet.training.initial_weights import IN_FOLD
from semi_nnunet.util.errors import UserError

NAME = "SemiMeanTeacherTrainer"


def change(folder: Path, case: str, part: int) -> None:
    """Give a preprocessed case another image (0), label (1) or preprocessing (2)."""
    path = get_manifest_file(folder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["case"] == case:
            parts = line["source"].split("-")
            parts[part] = "another"
            line["source"] = "-".join(parts)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("kind", "part", "named"), [("labelled", 1, "label"), ("unlabelled", 0, "image")]
)
def test_a_training_does_not_continue_on_other_data(kind, part, named, make_trainer, tmp_path):
    trainer = make_trainer(NAME)
    trainer.on_train_start()
    path = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(path), 0)
    record = json.loads((Path(trainer.output_folder) / "semi_settings.json").read_text())
    folder, case = Path(trainer.case_folders()[kind]), trainer._cases[kind][0]
    assert record["sources"][kind].keys() == set(trainer._cases[kind])
    same = make_trainer(NAME)
    same.load_checkpoint(str(path))
    content = get_manifest_file(folder).read_bytes()
    try:
        change(folder, case, part)
        assert case in Manifest(folder).present()
        with pytest.raises(UserError, match=f"{named} of {case}"):
            make_trainer(NAME, start=False).load_checkpoint(str(path))
        # nor does one begin on images and labels that are older than the last check of all files
        with pytest.raises(UserError, match=rf"changed since preprocessing: {case}\. Fix: semi_"):
            make_trainer(NAME)
    finally:
        get_manifest_file(folder).write_bytes(content)


def test_a_training_does_not_continue_to_validate_on_what_it_learned(make_trainer, tmp_path):
    trainer = make_trainer(NAME)
    path = tmp_path / "checkpoint.pth"
    trainer.on_train_start()
    trainer.save_checkpoint(str(path), 0)
    splits = Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json"
    before = splits.read_bytes()
    first, second, *others = json.loads(before)
    try:
        splits.write_text(json.dumps([second, first, *others]))
        with pytest.raises(UserError, match="validates on"):
            make_trainer(NAME, start=False).load_checkpoint(str(path))
    finally:
        splits.write_bytes(before)
    content = torch.load(path, weights_only=False)
    content["semi"][IN_FOLD].append(first["val"][0])  # it had no label when the training began
    with pytest.raises(UserError, match=f"validates on: {first['val'][0]}"):
        make_trainer(NAME, start=False).load_checkpoint(content)


@pytest.mark.parametrize("key", ["spacing", "normalization_schemes", "labels"])
def test_edited_plans_and_labels_are_refused_until_preprocessed_again(key, make_trainer):
    trainer = make_trainer(NAME)
    description = Path(trainer.preprocessed_dataset_folder_base) / "dataset.json"
    content = description.read_text(encoding="utf-8")
    if key == "labels":
        labels = trainer.dataset_json["labels"]
        names = [name for name in labels if name != "background"]
        exchanged = {
            **labels,
            **{name: labels[n] for name, n in zip(names, reversed(names), strict=True)},
        }
        description.write_text(json.dumps({**json.loads(content), "labels": exchanged}))
    else:
        plan = trainer.plans_manager.plans["configurations"][trainer.configuration_name]
        plan[key] = [2.0, 2.0] if key == "spacing" else ["NoNormalization"]
    try:
        with pytest.raises(UserError) as caught:
            trainer.on_train_start()
    finally:
        description.write_text(content, encoding="utf-8")
    places = [Path(problem.where) for problem in caught.value.problems]
    assert places == [Path(trainer.case_folders()[kind]) for kind in ("labelled", "unlabelled")]
    assert all("semi_nnunet preprocess" in problem.fix for problem in caught.value.problems)
