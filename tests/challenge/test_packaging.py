"""A submission is complete, and installs and runs without network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.challenge import packaging
from semi_nnunet.challenge.needs import find_needed_packages
from semi_nnunet.challenge.packaging import CONTRACTS, find_contract, package_model
from semi_nnunet.cli.main import main
from semi_nnunet.inference.predict import predict_images
from semi_nnunet.util.errors import UserError
from tests.challenge.conftest import write_pip, write_wheels
from tests.pseudo_labels.labelling import read

FILES = {
    "Dockerfile", "apptainer.def", "install.sh", "predict.sh", "README.md", "LICENSE", "wheels",
    "MODEL_CARD.md", "THIRD_PARTY.md", "requirements.txt", "submission.json", "model",
}  # fmt: skip


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """A folder with wheels of the few packages that a prediction is said to need."""
    versions = {"numpy": "2.0", "torch": "2.1+cpu"}
    monkeypatch.setattr(packaging, "find_needed_packages", lambda *_: versions)
    monkeypatch.setattr(packaging.torch.version, "cuda", "13.0")
    pip = {"pip": importlib.metadata.version("pip")}
    return write_wheels(versions | pip, tmp_path / "mine", {})


def test_the_folder_is_complete_and_its_page_has_the_commands(pool, offline, tmp_path, capsys):
    out = tmp_path / "My Team"
    words = ["package", "-m", str(pool.models[0].folder), "-f", "0", "-o", str(out), "--wheels"]
    assert main([*words, str(offline), "--contract", "flare22", "--licence", "CC BY 4.0"]) == 0
    output = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == FILES
    call = 'my-team:latest /bin/bash -c "sh predict.sh"'
    page, card = ((out / name).read_text() for name in ("README.md", "MODEL_CARD.md"))
    assert call in output and call in page and "--gpus device=1" in page and "60 seconds" in page
    assert "of the weights | CC BY 4.0 |" in card and "SemiBaselineTrainer" in card
    assert pool.models[0].checksums()["0"] in card
    assert "numpy | 2.0" in (out / "THIRD_PARTY.md").read_text()
    assert "Apache License" in (out / "LICENSE").read_text()
    sizes = {path.name: sum(f.stat().st_size for f in path.rglob("*")) for path in [out / "wheels"]}
    assert f"| `wheels/` | {sizes['wheels']:,} |" in page
    options = json.loads((out / "submission.json").read_text())
    assert options["limit"] == 60 and options["device"] == "cuda" and options["speed"] == "alike"
    assert len((out / "requirements.txt").read_text().splitlines()) == 3  # with this package
    for path in out.rglob("*"):
        if path.is_file() and path.suffix not in (".whl", ".pth"):
            assert str(tmp_path) not in path.read_text(), path


LINE = "Approved | <script>x</script> ![p](http://x) `code`"
HOSTILE = f"liver\n\n# {LINE} \x1b[31m\u202e"  # as the name of a label, it is refused


def test_names_of_strangers_stay_text_on_the_pages(pool, offline, tmp_path):
    model = pool.models[0].folder
    described = json.loads((model / "dataset.json").read_text())
    values = sorted(described["labels"].values())
    described["labels"] = {f"{LINE}{value}" if value else "background": value for value in values}
    described["channel_names"] = {key: LINE for key in described["channel_names"]}
    (model / "dataset.json").write_text(json.dumps(described))
    submission = package_model(
        model, tmp_path / "team", contract="flare22", device="cpu", wheel_folder=offline,
        licence=HOSTILE,
    )  # fmt: skip
    for name in ("README.md", "MODEL_CARD.md", "THIRD_PARTY.md"):
        text = (submission.folder / name).read_text(encoding="utf-8")
        assert not any(line.startswith("# Approved") for line in text.splitlines()), name
        assert "<script" not in text and "![p]" not in text and "`code`" not in text, name
        assert "\x1b" not in text and "\u202e" not in text, name
    assert "Approved" in (submission.folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_without_a_gpu_the_call_asks_for_none(pool, offline, tmp_path):
    submission = package_model(
        pool.models[0].folder, tmp_path / "team", contract="flare22", device="cpu",
        wheel_folder=offline, speed="fast", step=0.75,
    )  # fmt: skip
    assert (
        "--gpus" not in submission.call
        and "--gpus" not in (submission.folder / "README.md").read_text()
    )
    options = json.loads((submission.folder / "submission.json").read_text())
    assert (options["device"], options["speed"], options["step"]) == ("cpu", "fast", 0.75)
    assert submission.size == sum(
        f.stat().st_size for f in submission.folder.rglob("*") if f.is_file()
    )


@pytest.mark.parametrize("file", ["install.sh", "predict.sh"])
def test_the_shell_understands_its_files(file, pool, offline, tmp_path):
    submission = package_model(pool.models[0].folder, tmp_path / "team", wheel_folder=offline)
    assert subprocess.run(["sh", "-n", str(submission.folder / file)]).returncode == 0
    assert os.access(submission.folder / file, os.X_OK)
    docker = (submission.folder / "Dockerfile").read_text().splitlines()
    steps = [line for line in docker if line.startswith("RUN")]
    assert steps == ["RUN sh /submission/install.sh"] and "USER 1000:1000" in docker
    users = [n for n, line in enumerate(docker) if line.startswith("USER")]
    assert users[-1] < docker.index('CMD ["sh", "predict.sh"]')


def test_a_gpu_contract_needs_a_pytorch_with_cuda(pool, offline, tmp_path, monkeypatch):
    monkeypatch.setattr(packaging.torch.version, "cuda", None)
    with pytest.raises(UserError, match=r"PyTorch with CUDA.*--device cpu"):
        package_model(
            pool.models[0].folder, tmp_path / "team", contract="flare22", wheel_folder=offline
        )


def test_a_missing_pip_is_reported_with_the_other_problems(pool, tmp_path, monkeypatch):
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError) as error:
        package_model("nothing", tmp_path / "team", pins=["torch=2"])
    for keyword in ("pip, which is not installed", "no trained model", "got torch=2"):
        assert keyword in str(error.value)


def test_mistakes_are_reported_together_and_leave_no_files(pool, offline, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    with pytest.raises(UserError) as error:
        package_model(pool.models[0].folder, full, device="mps", pins=["torch=2", "numpy==1.0"])
    for keyword in ("exists already", "cpu or cuda, got mps", "NAME==VERSION, got torch=2"):
        assert keyword in str(error.value)
    with pytest.raises(UserError) as error:
        package_model(
            "nothing", full, contract="acdc", step=2.0, pins=["torch=2"], wheel_folder=full
        )
    for keyword in (
        "exists already", "must be one of", "got 2.0", "NAME==VERSION, got torch=2",
        "no trained model", "folder of wheels, got none",
    ):  # fmt: skip
        assert keyword in str(error.value)
    for mistake in ({"contract": "acdc"}, {"speed": "quick"}, {"folds": ["7"]}, {"step": 2.0}):
        with pytest.raises(UserError):
            package_model(pool.models[0].folder, tmp_path / "team", wheel_folder=offline, **mistake)
    with pytest.raises(UserError, match=r"torch==3.0\+cpu"):
        package_model(pool.models[0].folder, tmp_path / "team", wheel_folder=offline,
                pins=["torch==3.0+cpu"])  # fmt: skip
    assert not list(tmp_path.glob("*team*"))
    assert [path.name for path in full.iterdir()] == ["file"]


@pytest.mark.slow
def test_the_folder_installs_itself_and_predicts_without_network(pool, root, tmp_path):
    """As in an image: install.sh, then predict.sh, with wheels that only lead to these packages."""
    versions = find_needed_packages(root, cuda=False, ending=".nii.gz")
    path_line = f"{sysconfig.get_path('purelib')}\n"
    wheels = write_wheels(versions, tmp_path / "mine", {"here.pth": path_line})
    write_pip(wheels)
    submission = package_model(
        pool.models[0].folder, tmp_path / "team", speed="exact", wheel_folder=wheels
    )
    nowhere = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PIP_INDEX_URL": "http://[::]"}
    words = ["sh", str(submission.folder / "install.sh"), str(tmp_path / "trial")]
    process = subprocess.run(words, env=nowhere, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    compiled = list((tmp_path / "trial").rglob("semi_nnunet/challenge/__pycache__/*.pyc"))
    unchecked_hash = (1).to_bytes(4, "little")  # a builder of images that changes times is no harm
    assert compiled and all(path.read_bytes()[4:8] == unchecked_hash for path in compiled)
    (pool.images / "broken_0000.nii.gz").touch()
    outputs = tmp_path / "out"
    outputs.mkdir()
    words = ["sh", str(tmp_path / "trial" / "workspace" / "predict.sh"), str(pool.images)]
    process = subprocess.run([*words, str(outputs)], env=nowhere, capture_output=True, text=True)
    assert process.returncode == 1 and "not predicted: broken_0000" in process.stderr
    (pool.images / "broken_0000.nii.gz").unlink()
    expected = predict_images(pool.models[0].folder, pool.images, tmp_path / "p", speed="exact",
                     device="cpu")  # fmt: skip
    assert {path.name for path in expected} == {path.name for path in outputs.iterdir()}
    for path in expected:
        assert np.array_equal(read(path), read(outputs / path.name))
    assert shlex.split(submission.call)[:3] == ["docker", "container", "run"]


def test_the_call_of_flare22_equals_that_of_its_rules():
    assert find_contract("flare22").line("name") == (
        "docker container run --shm-size=28gb -m 28G --gpus device=1 --rm "
        "-v $PWD/inputs/:/workspace/inputs/ -v $PWD/outputs/:/workspace/outputs/ "
        'name:latest /bin/bash -c "sh predict.sh"'
    )


def test_contracts_without_a_gpu_do_not_ask_docker_for_one():
    for contract in CONTRACTS.values():
        words = shlex.split(contract.line("name", "in", "out"))
        assert ("--gpus" in words) == (contract.device == "cuda")
        assert {"in/:/workspace/inputs/", "out/:/workspace/outputs/", "name:latest"} <= {*words}


def test_the_error_of_an_unknown_challenge_lists_the_known_ones():
    with pytest.raises(UserError, match="flare22, flare24, generic, got acdc"):
        find_contract("acdc")
