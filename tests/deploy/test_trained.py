"""Models are found by their folder, compared, and read without executing them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from semi_nnunet.cli.main import main
from semi_nnunet.deploy.export import export_model
from semi_nnunet.deploy.trained import find_model, find_models, select_folds
from semi_nnunet.util import files
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json


class Gift:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def add_gift(checkpoint: Path, trace: Path) -> None:
    """Add an object to a checkpoint that runs code when a stock loader opens it."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "gift": Gift(trace)}, checkpoint)


def test_fold_all_is_left_out_if_there_are_others(model: Path) -> None:
    assert find_model(str(model)).folds == ("0",)
    assert find_model(str(model / "fold_all")).folds == ("all",)


def test_a_copy_that_a_user_keeps_of_a_fold_is_no_fold(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model / "fold_all", model / "fold_0_before")
    (model / "fold_0").rename(model / "fold_all_old")
    found = find_model(str(model))
    assert found.folds == ("all",)
    assert export_model(model, tmp_path / "exported").folds == ("all",)
    with pytest.raises(UserError, match=r"fold_all_old must be"):
        find_model(str(model / "fold_all_old"))
    with pytest.raises(UserError, match=r"fold all_old: has no checkpoint_final"):
        select_folds(found, ["all_old"])
    assert main(["tune", "-m", str(model), "--device", "cpu"]) == 2


def test_a_model_without_folds_but_copies_is_none(model: Path) -> None:
    for fold in ("fold_0", "fold_all"):
        (model / fold).rename(model / f"{fold}_old")
    with pytest.raises(UserError, match="no trained model"):
        find_model(str(model))


def test_a_renamed_model_is_refused(model: Path) -> None:
    with pytest.raises(UserError, match=r"got 2d_old, but plans\.json has 2d, 3d_fullres"):
        find_model(str(model.rename(model.with_name(f"{model.name}_old"))))


def test_a_model_is_found_below_nnunets_results(model: Path) -> None:
    relative = f"{model.parent.name}/{model.name}"
    assert find_model(relative).folder == model


def test_a_model_is_found_from_within_its_folder(model: Path, monkeypatch) -> None:
    monkeypatch.chdir(model)
    assert find_model(".").folder == model
    fold = next(model.glob("fold_*")).name
    assert find_model(fold).folds == (fold.removeprefix("fold_"),)


def test_the_number_of_a_data_set_stands_for_its_name(model: Path) -> None:
    number = int(model.parent.name[7:10])
    assert find_model(f"{number}/{model.name}") == find_model(f"{model.parent.name}/{model.name}")
    with pytest.raises(UserError, match="number 998"):
        find_model(f"998/{model.name}")


def test_the_error_of_a_missing_model_lists_the_searched_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plans\.json.*absent and"):
        find_model("absent")


@pytest.mark.parametrize("verb", ["pseudo-label", "pseudo-dataset", "select"])
def test_no_verb_executes_a_model(
    verb: str, model: Path, tmp_path: Path, prepared_dataset, capsys
) -> None:
    trace, dataset = tmp_path / "executed", prepared_dataset("labels", 1)
    add_gift(model / "fold_0" / "checkpoint_final.pth", trace)
    words = {
        "pseudo-label": ["-i", str(dataset.raw / "imagesUn"), "-o", str(tmp_path / "out"), "-m"],
        "pseudo-dataset": ["-d", dataset.number, "--new-id", "988", "-m"],
        "select": ["-d", dataset.number, "-m"],
    }[verb]
    device = ["--device", "cpu"]
    assert main([verb, *map(str, words), str(model), *device]) != 0
    captured = capsys.readouterr()
    assert "can execute code" in captured.err + captured.out
    assert not trace.exists()


def test_models_of_other_labels_do_not_label_together(model: Path) -> None:
    other = model.with_name(model.name.replace("SemiCPSTrainer", "Other"))
    (other / "fold_0").mkdir(parents=True)
    (other / "fold_0" / "checkpoint_final.pth").touch()
    (other / "plans.json").write_bytes((model / "plans.json").read_bytes())
    description = json.loads((model / "dataset.json").read_text())
    description["labels"] = {"background": 0, "spleen": 1}
    description["file_ending"] = ".mha"
    write_json(other / "dataset.json", description)
    with pytest.raises(UserError) as refused:
        find_models([str(model), str(other)])
    messages = [problem.what for problem in refused.value.problems]
    assert len(messages) == 2 and "labels" in messages[0] and ".mha" in messages[1]


def test_a_checkpoint_is_hashed_once_until_it_changes(model: Path, monkeypatch) -> None:
    hashed, compute_hash = list[str](), files.sha256_of_file

    def counted(path: str | Path) -> str:
        hashed.append(Path(path).name)
        return compute_hash(path)

    monkeypatch.setattr(files, "sha256_of_file", counted)
    record = find_model(str(model)).record()
    assert find_models([str(model)])[0].record() == record and len(hashed) == 1
    assert record["folds"] == {"0": compute_hash(model / "fold_0" / "checkpoint_final.pth")}
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    content = {**torch.load(checkpoint, weights_only=True), "more": 1}
    files.write_atomically(checkpoint, lambda aside: torch.save(content, aside))
    assert find_model(str(model)).record() != record and len(hashed) == 2
