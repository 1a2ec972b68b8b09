"""A zip of a stranger is looked at before it is unpacked, and takes nothing's place."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing.model_import import install_model_from_zip_file

from semi_nnunet.cli.main import main
from semi_nnunet.deploy.export import export
from semi_nnunet.deploy.install import install
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.trainers import run_epochs

MODEL = "Dataset001_X/nnUNetTrainer__nnUNetPlans__2d"


class Gift:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "installed"
    monkeypatch.setenv("nnUNet_results", str(folder))
    return folder


def small_model(folder: Path, weight: float = 1.0, **more: Any) -> Path:
    """A model of one weight, as a zip."""
    model = folder / "made" / MODEL
    (model / "fold_0").mkdir(parents=True, exist_ok=True)
    write_json(model / "plans.json", {"plans_name": "nnUNetPlans", "configurations": {}})
    write_json(model / "dataset.json", {"labels": {"background": 0}})
    content = {"network_weights": {"w": torch.tensor(weight)}, **more}
    torch.save(content, model / "fold_0" / "checkpoint_final.pth")
    archive = folder / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(model.rglob("*")):
            file.write(path, path.relative_to(folder / "made"))
    return archive


def add(archive: Path, name: str, content: bytes = b"x", mode: int = 0o100644) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(entry, content)


def refused(archive: Path, results: Path) -> str:
    """What is said; nothing was written."""
    before = sorted(results.rglob("*")) if results.exists() else []
    with pytest.raises(UserError) as error:
        install(archive)
    assert (sorted(results.rglob("*")) if results.exists() else []) == before
    return str(error.value)


@pytest.mark.slow
def test_two_methods_and_a_stock_model_lie_beside_each_other(make_trainer, tmp_path, monkeypatch):
    exports, images = [], torch.randn(1, 12, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("SemiMeanTeacherTrainer", "SemiBaselineTrainer"):
        trainer = make_trainer(name, start=False, epochs=1)
        run_epochs(trainer, 1)
        trainer.on_train_end()
        dataset = trainer.plans_manager.dataset_name
        exports.append(export(f"{dataset}/{name}__nnUNetPlans__2d", tmp_path / "exported"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "theirs"))
    stock = tmp_path / "theirs" / dataset / "nnUNetTrainer__nnUNetPlans__2d"
    stock.mkdir(parents=True)
    for one in exports:
        install_model_from_zip_file(str(one.archive))  # nnU-Net's own
    assert len(list(stock.parent.iterdir())) == 3 and list(stock.iterdir()) == []
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "ours"))
    for one in exports:
        (folder,) = install(one.archive).models
        assert folder.name == f"nnUNetTrainer__{one.plans}__2d" and one.plans in folder.name
        logits = []
        for place in (folder, one.folder, stock.with_name(folder.name)):
            predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(place), one.folds)
            logits.append(predictor.predict_logits_from_preprocessed_data(images))
        assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def test_a_model_is_installed_once_and_another_does_not_take_its_place(tmp_path, results, capsys):
    archive = small_model(tmp_path)
    assert main(["install", str(archive)]) == 0
    assert f"installed {results / MODEL}" in capsys.readouterr().out
    assert install(archive).models == (results / MODEL,)  # the same again
    said = refused(small_model(tmp_path, weight=2.0), results)
    assert f"{results / MODEL}: holds another model already. Fix:" in said


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("../outside.txt", 0o100644, "must lie below"),
        (f"{MODEL}/../../../outside.txt", 0o100644, "must lie below"),
        ("/tmp/outside.txt", 0o100644, "must lie below"),
        ("C:/outside.txt", 0o100644, "must lie below"),
        ("..\\outside.txt", 0o100644, "must lie below"),
        (f"{MODEL}/link", stat.S_IFLNK | 0o777, "must be a file, got a link"),
        (f"{MODEL}/plans.json", 0o100644, "got it twice"),
        (f"{MODEL}/fold_0/./../fold_0/x", 0o100644, "must lie below"),
        (f"{MODEL}//./plans.json", 0o100644, "got it twice"),
        (f"{MODEL}/plans.json/x", 0o100644, "a file and a folder at once"),
        (f"{MODEL}/fold_0", 0o100644, "a file and a folder at once"),
        ("", 0o100644, "a file and a folder at once"),
        (".", 0o100644, "a file and a folder at once"),
        (f"{MODEL}/{'d/' * 3000}x", 0o100644, "at most 20 parts"),
        (f"{MODEL}/{'x' * 300}", 0o100644, "at most 20 parts of at most 255 bytes"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_paths_are_refused(name, mode, says, tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, name, b"/etc", mode)
    assert says in refused(archive, results)


def test_a_size_bomb_is_refused_before_it_is_unpacked(tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, f"{MODEL}/notes.txt", bytes(20 * 2**20))
    assert "must not grow more than 100 times" in refused(archive, results)


def test_a_zip_that_needs_more_than_the_disk_is_refused(tmp_path, results, monkeypatch):
    archive = small_model(tmp_path)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "10 free" in refused(archive, results)


def test_a_checkpoint_that_executes_code_is_refused(tmp_path, results):
    archive = small_model(tmp_path, gift=Gift(tmp_path / "executed"))
    assert "can execute code" in refused(archive, results)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b"[1]", "must be an object with configurations"),
        (b"{", "plans.json"),
        (b'{"configurations": {}}', "must be an object with"),
    ],
)
def test_descriptions_of_strangers_are_checked(content, says, tmp_path, results):
    archive = small_model(tmp_path)
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    files[f"{MODEL}/plans.json"] = content
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in files.items():
            new.writestr(name, data)
    assert says in refused(archive, results)


def test_pickles_and_what_is_no_model_are_left_out_and_named(tmp_path, results):
    archive = small_model(tmp_path)
    others = ["Dataset001_X/ensembles/notes.json", f"{MODEL}/crossval/postprocessing.pkl"]
    for name in others:
        add(archive, name)
    assert install(archive).left_out == tuple(sorted(others))
    assert not [path for path in results.rglob("*") if path.name in ("notes.json", "crossval")]


def test_what_is_no_zip_is_said(tmp_path, results):
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    assert "is no whole zip" in refused(tmp_path / "x.zip", results)
    assert "does not exist" in refused(tmp_path / "absent.zip", results)
    os.mkfifo(tmp_path / "pipe.zip")
    assert "is no file" in refused(tmp_path / "pipe.zip", results)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_a_zip_that_says_how_it_is_packed_wrongly_is_not_whole(method, tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, f"{MODEL}/note.txt", b"x" * 500)
    content, say = bytearray(archive.read_bytes()), struct.pack("<H", method)
    central = content.rfind(b"PK\x01\x02") + 10
    local = content.rfind(b"PK\x03\x04") + 8
    content[central : central + 2] = content[local : local + 2] = say
    archive.write_bytes(content)
    assert "is no whole zip" in refused(archive, results)


def test_a_name_that_is_no_text_is_not_whole(tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, f"{MODEL}/ä", b"x")
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    assert "is no whole zip" in refused(archive, results)


def test_names_of_a_stranger_do_not_steer_the_terminal(tmp_path, results, capsys):
    archive = small_model(tmp_path)
    add(archive, "\x1b]0;mine\x07/x")
    assert main(["install", str(archive)]) == 0
    assert "\x1b" not in capsys.readouterr().out
