"""Checkpoints: the round trip, files that are rejected, and the file that is used instead."""

import itertools
import os
import pickle
import sys
import time
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import UserError

CPU = torch.device("cpu")
IDENTITY = {"trainer": "SemiMeanTeacherTrainer", "fold": 0, "patch size": [32, 32]}


def small_checkpoint(epoch: int = 3, **keys: Any) -> dict[str, Any]:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
    return {"network_weights": weights, "current_epoch": epoch, **keys}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint_latest.pth"
    checkpoints.save(small_checkpoint(), path)
    return path


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


class Malicious:
    """Creates a folder when it is unpickled without care."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


# ---- the round trip


def test_tensors_come_back_with_their_types(tmp_path):
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)
    tensors = {str(dtype): torch.ones(2, 3).to(dtype) for dtype in dtypes}
    checkpoints.save({"network_weights": tensors}, tmp_path / "x.pth")
    restored = checkpoints.read_checkpoint(tmp_path / "x.pth")["network_weights"]
    for name, tensor in tensors.items():
        assert torch.equal(restored[name], tensor) and restored[name].dtype == tensor.dtype


def test_numpy_values_devices_paths_and_tuples_come_back_plain(tmp_path):
    logging = {
        "dice": [np.float32(0.5), np.float64(0.25), np.nan],
        "epoch": np.int64(3),
        "flag": np.bool_(True),
        "array": np.arange(3),
        np.int64(7): "a numpy key",
        "device": torch.device("cuda:1"),
        "path": Path("/a/b"),
        "axes": (0, (np.int8(1), None)),
    }
    checkpoints.save(small_checkpoint(logging=logging), tmp_path / "x.pth")
    restored = checkpoints.read_checkpoint(tmp_path / "x.pth")["logging"]
    assert np.isnan(restored["dice"].pop())
    assert restored == {
        "dice": [0.5, 0.25],
        "epoch": 3,
        "flag": True,
        "array": [0, 1, 2],
        7: "a numpy key",
        "device": "cuda:1",
        "path": "/a/b",
        "axes": (0, (1, None)),
    }
    assert type(restored["epoch"]) is int and type(restored["flag"]) is bool


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.SGD])
def test_an_optimizer_continues_exactly(tmp_path, optimizer_class):
    options = {"momentum": 0.9} if optimizer_class is torch.optim.SGD else {}

    def fresh() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.ones(3))
        return weight, optimizer_class([weight], lr=0.1, **options)

    def step(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()

    weight, optimizer = fresh()
    step(weight, optimizer)
    content = {"network_weights": {"w": weight}, "optimizer_state": optimizer.state_dict()}
    checkpoints.save(content, tmp_path / "x.pth")
    step(weight, optimizer)
    resumed_weight, resumed = fresh()
    content = checkpoints.read_checkpoint(tmp_path / "x.pth")
    resumed_weight.data.copy_(content["network_weights"]["w"])
    resumed.load_state_dict(content["optimizer_state"])
    step(resumed_weight, resumed)
    assert torch.equal(weight, resumed_weight)


def test_saving_again_replaces_the_file_and_leaves_nothing_else(saved):
    checkpoints.save(small_checkpoint(epoch=4), saved)
    assert checkpoints.read_checkpoint(saved)["current_epoch"] == 4
    assert list(saved.parent.iterdir()) == [saved]


# ---- rejected files


def test_a_file_cut_at_any_length_is_refused(saved):
    whole = saved.read_bytes()
    for length in [*range(0, len(whole) - 1, max(1, len(whole) // 40)), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged") as error:
            checkpoints.read_checkpoint(saved)
        assert "delete" in error.value.fix


def test_a_flipped_bit_in_the_tensor_data_is_noticed(saved):
    whole = saved.read_bytes()
    data = torch.arange(6.0).numpy().tobytes()
    start = whole.index(data)
    for position in range(start, start + len(data)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        saved.write_bytes(flipped)
        with pytest.raises(UserError, match="damaged"):
            checkpoints.read_checkpoint(saved)


def test_a_flipped_byte_anywhere_is_noticed_or_harmless(saved):
    whole, expected = saved.read_bytes(), small_checkpoint()["network_weights"]
    for position in range(0, len(whole), 11):
        flipped = bytearray(whole)
        flipped[position] ^= 0xFF
        saved.write_bytes(flipped)
        try:
            weights = checkpoints.read_checkpoint(saved)["network_weights"]
        except UserError:
            continue
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_a_tensor_marked_as_a_folder_is_noticed(saved):
    """Torch would fill the tensor with the current content of the memory."""
    with zipfile.ZipFile(saved) as archive:
        (name,) = [entry.filename for entry in archive.infolist() if entry.filename.endswith("/0")]
    content = bytearray(saved.read_bytes())
    content[content.rindex(name.encode()) - 8] ^= 0x10  # low byte of its external attributes
    saved.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged.*folder"):
        checkpoints.read_checkpoint(saved)


@pytest.mark.parametrize("wrapped", [True, False], ids=["torch file", "bare pickle"])
def test_a_malicious_file_is_refused_and_not_executed(tmp_path, wrapped):
    path, trace = tmp_path / "checkpoint_final.pth", tmp_path / "executed"
    content = small_checkpoint(gift=Malicious(trace))
    if wrapped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["gift"]))
    with pytest.raises(UserError):
        checkpoints.read_checkpoint(path)
    assert not trace.exists()
    if wrapped:
        torch.load(path, weights_only=False)
        assert trace.exists()  # the file can indeed execute code


def test_a_type_that_can_execute_code_is_named(tmp_path):
    torch.save(small_checkpoint(share=Fraction(1, 3)), tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"fractions\.Fraction.*execute code"):
        checkpoints.read_checkpoint(tmp_path / "y.pth")


def test_a_variable_allows_files_that_can_execute_code(tmp_path, monkeypatch):
    torch.save(small_checkpoint(share=Fraction(1, 3)), tmp_path / "y.pth")
    monkeypatch.setenv(checkpoints.EXECUTE, "1")
    assert checkpoints.read_checkpoint(tmp_path / "y.pth")["share"] == Fraction(1, 3)


@pytest.mark.parametrize(
    "words", [["-pretrained_weights", "{}"], ["-pretrained_weights={}"], ["-pre", "{}", "--npz"]]
)
def test_pretrained_weights_are_checked_before_nnunet_opens_them(
    words, tmp_path, monkeypatch, make_trainer
):
    path, trace = tmp_path / "theirs.pth", tmp_path / "executed"
    torch.save(small_checkpoint(gift=Malicious(trace)), path)
    command = ["nnUNetv2_train", "1", "2d", "0", "-p", "nnUNetPlans"]
    monkeypatch.setattr(sys, "argv", [*command, *(word.format(path) for word in words)])
    with pytest.raises(UserError, match="execute code"):
        make_trainer("SemiMeanTeacherTrainer", start=False).initialize()
    assert not trace.exists()
    torch.save(small_checkpoint(), path)
    make_trainer("SemiMeanTeacherTrainer", start=False).initialize()


@pytest.mark.parametrize("words", [["-c"], [""], []])  # argv of `python -c`, a notebook, a library
def test_a_process_without_arguments_has_no_pretrained_weights(words, monkeypatch, make_trainer):
    monkeypatch.setattr(sys, "argv", words)
    make_trainer("SemiMeanTeacherTrainer", start=False).initialize()


@pytest.mark.parametrize("content", [[1, 2], {"weights": 3}])
def test_a_file_with_other_content_is_rejected(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="no nnU-Net checkpoint"):
        checkpoints.read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "changes",
    [
        {"network_weights": [torch.zeros(1)]},
        {"network_weights": {1: torch.zeros(1)}},
        {"network_weights": {"w": "text"}},
        {"network_weights": {"w": torch.zeros(2, device="meta")}},
        {"network_weights": {"w": torch.zeros(2).to_sparse()}},
        {"network_weights": {"w": torch.zeros(2, dtype=torch.complex64)}},
        {"trainer_name": ["nnUNetTrainer"]},
        {"init_args": None},
        {"current_epoch": "1"},
        {"semi": [1]},
        {"inference_allowed_mirroring_axes": 3},
        {"inference_allowed_mirroring_axes": (0, 7)},
    ],
    ids=repr,
)
def test_values_that_no_checkpoint_has_are_named(changes, tmp_path):
    torch.save(small_checkpoint(**changes), tmp_path / "x.pth")
    name = next(iter(changes)) if "network_weights" not in changes else "weights"
    with pytest.raises(UserError, match=f"no nnU-Net checkpoint.*{name}"):
        checkpoints.read_checkpoint(tmp_path / "x.pth")


def test_an_absent_file_is_not_called_damaged(tmp_path):
    with pytest.raises(UserError, match=r"x\.pth cannot be read.*No such file"):
        checkpoints.read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_a_full_memory_does_not_count_as_a_damaged_file(saved, monkeypatch, error):
    def load(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(error):
        checkpoints.read_checkpoint(saved)


# ---- the newest valid file


def test_an_intact_file_is_used_and_none_is_skipped(saved):
    checkpoint, path, skipped = checkpoints.read_newest_valid(saved, "cpu")
    assert checkpoint["current_epoch"] == 3 and path == saved and skipped == []


def test_the_most_advanced_readable_checkpoint_stands_in(tmp_path):
    for name, epoch in (("final", 100), ("latest", 40), ("best", 60)):
        checkpoints.save(small_checkpoint(epoch), tmp_path / f"checkpoint_{name}.pth")
    damage(tmp_path / "checkpoint_final.pth")
    checkpoint, path, skipped = checkpoints.read_newest_valid(
        tmp_path / "checkpoint_final.pth", "cpu"
    )
    assert checkpoint["current_epoch"] == 60 and path.name == "checkpoint_best.pth"
    assert len(skipped) == 1 and "checkpoint_final.pth" in skipped[0]
    damage(tmp_path / "checkpoint_best.pth")
    checkpoint, path, skipped = checkpoints.read_newest_valid(
        tmp_path / "checkpoint_final.pth", "cpu"
    )
    assert checkpoint["current_epoch"] == 40 and path.name == "checkpoint_latest.pth"
    assert ["final" in skipped[0], "best" in skipped[1]] == [True, True]


def test_an_extended_training_continues_from_its_latest_checkpoint(tmp_path):
    for name, epoch in (("final", 100), ("latest", 150), ("best", 140)):
        checkpoints.save(small_checkpoint(epoch), tmp_path / f"checkpoint_{name}.pth")
    checkpoint, path, _ = checkpoints.read_newest_valid(tmp_path / "checkpoint_final.pth", "cpu")
    assert checkpoint["current_epoch"] == 150 and path.name == "checkpoint_latest.pth"


@pytest.mark.parametrize("names", list(itertools.permutations(["final", "latest", "best"])))
def test_the_clock_does_not_say_which_checkpoint_is_the_newest(tmp_path, names):
    """The files are of 1990, today and 2090; only their content counts."""
    for epoch, name in ((40, "latest"), (60, "best"), (100, "final")):
        checkpoints.save(small_checkpoint(epoch), tmp_path / f"checkpoint_{name}.pth")
    for seconds, name in zip((640_000_000, time.time(), 3_800_000_000), names, strict=True):
        os.utime(tmp_path / f"checkpoint_{name}.pth", (seconds, seconds))
    for name, epoch in (("final", 100), ("best", 60), ("latest", 40)):
        checkpoint, path, _ = checkpoints.read_newest_valid(tmp_path / "checkpoint_latest.pth", CPU)
        assert checkpoint["current_epoch"] == epoch and path.name == f"checkpoint_{name}.pth"
        path.unlink()


def test_a_folder_without_a_readable_checkpoint_lists_every_file(tmp_path):
    for name in ("final", "best"):
        (tmp_path / f"checkpoint_{name}.pth").touch()
    with pytest.raises(UserError, match="no checkpoint") as error:
        checkpoints.read_newest_valid(tmp_path / "checkpoint_final.pth", "cpu")
    for name in ("final", "best"):
        assert f"checkpoint_{name}.pth" in str(error.value)


# ---- compatibility


def test_a_checkpoint_of_the_same_training_is_accepted(tmp_path):
    path = tmp_path / "x.pth"
    expected = {**IDENTITY, "fold": np.int64(0), "axes": (np.int64(1), 2)}
    checkpoints.save(small_checkpoint(semi={"identity": expected}), path)
    checkpoints.require_compatible(checkpoints.read_checkpoint(path), path, expected)


def test_every_difference_is_named(tmp_path):
    checkpoint = {"semi": {"identity": {**IDENTITY, "fold": 1, "patch size": [64, 64]}}}
    expected = {**IDENTITY, "classes": 3}
    with pytest.raises(UserError, match="another training") as error:
        checkpoints.require_compatible(checkpoint, "x.pth", expected)
    assert [problem.where for problem in error.value.problems] == ["fold", "patch size", "classes"]
    assert "has 0, the checkpoint 1" in error.value.problems[0].what


def test_a_checkpoint_of_nnunets_own_trainer_can_only_be_started_from():
    with pytest.raises(UserError, match="nnUNetTrainer, not by SemiMeanTeacherTrainer") as error:
        checkpoints.require_compatible({"trainer_name": "nnUNetTrainer"}, "x.pth", IDENTITY)
    assert "-pretrained_weights" in error.value.fix
