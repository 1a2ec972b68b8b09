"""A zip is checked before it is unpacked, and replaces nothing."""

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
from semi_nnunet.deploy.export import export_model
from semi_nnunet.deploy.install import install_models
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


def install_error(archive: Path, results: Path) -> str:
    """What is said; nothing was written."""
    files = sorted(results.rglob("*")) if results.exists() else []
    with pytest.raises(UserError) as error:
        install_models(archive)
    assert (sorted(results.rglob("*")) if results.exists() else []) == files
    return str(error.value)


@pytest.mark.slow
def test_two_methods_and_a_stock_model_can_be_installed_together(
    make_trainer, tmp_path, monkeypatch
):
    exports, images = [], torch.randn(1, 12, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("SemiMeanTeacherTrainer", "SemiBaselineTrainer"):
        trainer = make_trainer(name, start=False, epochs=1)
        run_epochs(trainer, 1)
        trainer.on_train_end()
        dataset = trainer.plans_manager.dataset_name
        exports.append(export_model(f"{dataset}/{name}__nnUNetPlans__2d", tmp_path / "exported"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "theirs"))
    stock = tmp_path / "theirs" / dataset / "nnUNetTrainer__nnUNetPlans__2d"
    stock.mkdir(parents=True)
    for exported in exports:
        install_model_from_zip_file(str(exported.archive))  # nnU-Net's own
    assert len(list(stock.parent.iterdir())) == 3 and list(stock.iterdir()) == []
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "ours"))
    for exported in exports:
        (folder,) = install_models(exported.archive).models
        assert (
            folder.name == f"nnUNetTrainer__{exported.plans}__2d" and exported.plans in folder.name
        )
        logits = []
        for model_folder in (folder, exported.folder, stock.with_name(folder.name)):
            predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(model_folder), exported.folds)
            logits.append(predictor.predict_logits_from_preprocessed_data(images))
        assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def test_an_installed_model_is_not_replaced_by_another(tmp_path, results, capsys):
    archive = small_model(tmp_path)
    assert main(["install", str(archive)]) == 0
    assert f"installed {results / MODEL}" in capsys.readouterr().out
    assert install_models(archive).models == (results / MODEL,)  # the same again
    message = install_error(small_model(tmp_path, weight=2.0), results)
    assert f"{results / MODEL}: holds another model" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.json", {"labels": {"background": 0, "spleen": 1, "liver": 2}}),
        ("dataset.json", {"labels": {"background": 0}, "channel_names": {"0": "MR"}}),
        ("plans.json", {"plans_name": "nnUNetPlans", "configurations": {"2d": {"spacing": [1]}}}),
    ],
)
def test_the_same_weights_with_other_labels_are_another_model(tmp_path, results, name, content):
    install_models(small_model(tmp_path))
    archive = small_model(tmp_path / "other")
    model = tmp_path / "other" / "made" / MODEL
    write_json(model / name, content)
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(model.rglob("*")):
            file.write(path, path.relative_to(tmp_path / "other" / "made"))
    assert f"{results / MODEL}: holds another model" in install_error(archive, results)


def test_a_torn_installed_model_is_named(tmp_path, results):
    archive = small_model(tmp_path)
    install_models(archive)
    (results / MODEL / "dataset.json").write_text('{"labels": {"backg')
    assert "dataset.json is not valid" in install_error(archive, results)


@pytest.mark.parametrize(
    ("name", "mode", "keyword"),
    [
        ("../outside.txt", 0o100644, "must lie below"),
        (f"{MODEL}/../../../outside.txt", 0o100644, "must lie below"),
        ("/tmp/outside.txt", 0o100644, "must lie below"),
        ("C:/outside.txt", 0o100644, "must lie below"),
        ("..\\outside.txt", 0o100644, "must lie below"),
        (f"{MODEL}/link", stat.S_IFLNK | 0o777, "got a link"),
        (f"{MODEL}/plans.json", 0o100644, "got it twice"),
        (f"{MODEL}/fold_0/./../fold_0/x", 0o100644, "must lie below"),
        (f"{MODEL}//./plans.json", 0o100644, "got it twice"),
        (f"{MODEL}/plans.json/x", 0o100644, "folder at once"),
        (f"{MODEL}/fold_0", 0o100644, "folder at once"),
        ("", 0o100644, "folder at once"),
        (".", 0o100644, "folder at once"),
        (f"{MODEL}/{'d/' * 3000}x", 0o100644, "at most 20 parts"),
        (f"{MODEL}/{'x' * 300}", 0o100644, "at most 255 bytes"),
        (f"{MODEL}/-rf", 0o100644, "not begin with -"),
        (f"{MODEL[:-2]}a\nb/plans.json", 0o100644, "no line breaks"),
        (f"{MODEL}/\u202egnp.exe", 0o100644, "marks of direction"),
        (f"{MODEL}/\x1b[31m", 0o100644, "control characters"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_paths_are_refused(name, mode, keyword, tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, name, b"/etc", mode)
    assert keyword in install_error(archive, results)


def test_a_size_bomb_is_refused_before_it_is_unpacked(tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, f"{MODEL}/notes.txt", bytes(20 * 2**20))
    assert "more than 100 times" in install_error(archive, results)


def test_a_zip_that_needs_more_than_the_disk_is_refused(tmp_path, results, monkeypatch):
    archive = small_model(tmp_path)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "10 free" in install_error(archive, results)


def test_a_checkpoint_that_executes_code_is_refused(tmp_path, results):
    archive = small_model(tmp_path, gift=Gift(tmp_path / "executed"))
    assert "can execute code" in install_error(archive, results)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "keyword"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "too deeply"),
        (b"[1]", "configurations"),
        (b"{", "plans.json"),
        (b'{"configurations": {}}', "an object"),
    ],
)
def test_hostile_plans_are_refused(content, keyword, tmp_path, results):
    archive = small_model(tmp_path)
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    files[f"{MODEL}/plans.json"] = content
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in files.items():
            new.writestr(name, data)
    assert keyword in install_error(archive, results)


def test_pickles_and_files_outside_models_are_left_out_and_listed(tmp_path, results):
    archive = small_model(tmp_path)
    extra_files = ["Dataset001_X/ensembles/notes.json", f"{MODEL}/crossval/postprocessing.pkl"]
    for name in extra_files:
        add(archive, name)
    assert install_models(archive).left_out == tuple(sorted(extra_files))
    assert not [path for path in results.rglob("*") if path.name in ("notes.json", "crossval")]


def test_files_that_are_not_zips_are_refused(tmp_path, results):
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    assert "complete zip" in install_error(tmp_path / "x.zip", results)
    assert "does not exist" in install_error(tmp_path / "absent.zip", results)
    os.mkfifo(tmp_path / "pipe.zip")
    assert "not a file" in install_error(tmp_path / "pipe.zip", results)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_a_zip_with_a_wrong_compression_method_is_refused(method, tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, f"{MODEL}/note.txt", b"x" * 500)
    content, say = bytearray(archive.read_bytes()), struct.pack("<H", method)
    central = content.rfind(b"PK\x01\x02") + 10
    local = content.rfind(b"PK\x03\x04") + 8
    content[central : central + 2] = content[local : local + 2] = say
    archive.write_bytes(content)
    assert "complete zip" in install_error(archive, results)


def test_a_zip_with_a_broken_file_name_is_refused(tmp_path, results):
    archive = small_model(tmp_path)
    add(archive, f"{MODEL}/ä", b"x")
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    assert "complete zip" in install_error(archive, results)


def test_control_characters_in_file_names_are_not_printed(tmp_path, results, capsys):
    archive = small_model(tmp_path)
    add(archive, "\x1b]0;mine\x07/x")
    assert main(["install", str(archive)]) == 0
    assert "\x1b" not in capsys.readouterr().out
