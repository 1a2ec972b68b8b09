"""Make a trained model a submission: a folder that organisers build and run without network."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import semi_nnunet
from semi_nnunet.challenge import wheels
from semi_nnunet.challenge.contracts import Contract, contract_of
from semi_nnunet.challenge.entry import DESCRIPTION, MODEL
from semi_nnunet.challenge.needs import OWN, licence_of, needed, normalised
from semi_nnunet.challenge.packed_model import Packed, opened, pack
from semi_nnunet.deploy.trained import CHECKPOINT
from semi_nnunet.inference.model import ALIKE, options_of
from semi_nnunet.util.errors import Problem, collect_errors, raise_if_any
from semi_nnunet.util.files import folder_aside, read_json, write_json, write_text

TEMPLATES = Path(__file__).parent / "templates"
SHELL = ("Dockerfile", "apptainer.def", "install.sh", "predict.sh")
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)")
LICENCES = ("LICENSE", "licenses/LICENSE")
WHAT = {
    MODEL: "weights, plans and labels: what predicts, nothing of the training",
    "wheels": "pinned packages of Python, this program among them",
    "Dockerfile": "for docker, podman and buildah",
    "apptainer.def": "for Apptainer",
    "install.sh": "what both of them run",
    "predict.sh": "what organisers call",
    DESCRIPTION: "how the model predicts, and the contract",
    "requirements.txt": "versions and checksums of the wheels",
    "LICENSE": "of the program",
    "MODEL_CARD.md": "what the model is, and its limits",
    "THIRD_PARTY.md": "licences of the wheels",
}


@dataclass(frozen=True)
class Part:
    """A file or folder of a submission.

    Args:
        name: in the submission.
        size: bytes.
        what: it is.
    """

    name: str
    size: int
    what: str


@dataclass(frozen=True)
class Submission:
    """A submission that was written.

    Args:
        folder: where it is.
        name: for the image.
        contract: by which it is called.
        call: the line by which organisers run it.
        parts: its files and folders, with sizes.
    """

    folder: Path
    name: str
    contract: Contract
    call: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)


def package(
    model: str | Path,
    out: str | Path,
    *,
    contract: str = "generic",
    folds: Sequence[str] | None = None,
    device: str | None = None,
    speed: str = ALIKE,
    step: float | None = None,
    licence: str | None = None,
    pins: Sequence[str] = (),
    wheel_folder: str | Path | None = None,
    extra_index_url: str | None = None,
) -> Submission:
    """Write a folder from which a container is built and run without network.

    Args:
        model: folder TRAINER__PLANS__CONFIGURATION or a fold in it, as it is or below
            nnUNet_results, or a zip that ``semi_nnunet export`` wrote.
        out: new folder; its name becomes that of the image.
        contract: "flare22", "flare24" or "generic".
        folds: numbers or "all"; None: those that are found.
        device: "cpu": no CUDA is packed; "cuda": a GPU is used if there is one. None: as the
            contract says.
        speed: see :func:`semi_nnunet.predict`.
        step: between tiles, as a fraction of the patch. None: as speed says.
        licence: of the weights, for the model card.
        pins: NAME==VERSION of packages that are taken in another version than the installed one.
        wheel_folder: folder to take all wheels from, without network, such as the wheels of an
            earlier submission. None: pip downloads them.
        extra_index_url: where pip looks, too, for example for a PyTorch without CUDA.

    Returns:
        What was written.

    Raises:
        UserError: the model, an option or a wheel cannot be used; nothing is written then.
    """
    folder = Path(out).expanduser().absolute()
    source = None if wheel_folder is None else Path(wheel_folder).expanduser()
    wrong = list[Problem]()
    with collect_errors(wrong, "pip"):
        wheels.installed_pip()
    with collect_errors(wrong, "--contract"):
        agreed = contract_of(contract)
        device = device or agreed.device
    with collect_errors(wrong, "-o"):
        chosen = require_options(folder, device, pins)
    with collect_errors(wrong, "--step"):
        options_of(speed, torch.device("cpu"), step=step)
    if source is not None and not any(source.glob("*.whl")):
        what = f"must be a folder of wheels, got {'none' if source.is_dir() else 'no folder'}"
        wrong.append(Problem(f"--wheels {source}", what, "correct the path"))
    index = () if extra_index_url is None else ("--extra-index-url", extra_index_url)
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "submission"
    with ExitStack() as during:
        with collect_errors(wrong, "-m"):
            trained = during.enter_context(opened(model, folds))
        raise_if_any("the submission cannot be packaged:", wrong)
        aside = during.enter_context(folder_aside(folder, "Nothing was packaged"))
        aside.mkdir(parents=True)
        packed = pack(trained, aside / MODEL)
        how = {"model": packed.folder.name, "speed": speed, "step": step, "device": device}
        how |= {"contract": agreed.name, "limit": agreed.limit}
        write_json(aside / DESCRIPTION, how)
        versions = needed(aside, device == "cuda", packed.description["file_ending"]) | chosen
        fetched = wheels.fetch(versions, aside / "wheels", index, source)
        for stale in (path for path in fetched if path.name.startswith("semi_nnunet-")):
            stale.unlink()
        wheels.own_wheel(aside / "wheels")
        fetched = sorted((aside / "wheels").glob("*.whl"))
        wheels.write_requirements(fetched, aside / "requirements.txt")
        write_texts(aside, name, agreed, packed, how, versions, licence)
    call = call_of(agreed, name, device)
    return Submission(folder, name, agreed, call, parts_of(folder))


def require_options(folder: Path, device: str | None, pins: Sequence[str]) -> dict[str, str]:
    """Check what the user gave, before long work.

    Returns:
        The packages that are pinned to other versions.

    Raises:
        UserError: naming all that is wrong.
    """
    wrong = []
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        wrong.append(Problem(str(folder), "exists already", "remove it or choose another -o"))
    if device not in ("cpu", "cuda", None):  # None: the contract is not known
        what = f"must be cpu or cuda, got {device}"
        wrong.append(Problem("--device", what, "choose cpu for a machine without GPU"))
    if device == "cuda" and torch.version.cuda is None:
        what = "needs a PyTorch with CUDA, got one without"
        wrong.append(Problem("--device cuda", what, "choose --device cpu, or install another"))
    chosen = {}
    for pin in pins:
        if match := PIN.fullmatch(pin):
            chosen[normalised(match[1])] = match[2]
        else:
            what = f"must be NAME==VERSION, got {pin}"
            wrong.append(Problem("--pin", what, "for example --pin torch==2.13.0+cpu"))
    raise_if_any("the submission cannot be packaged:", wrong)
    return chosen


def write_texts(
    folder: Path,
    name: str,
    contract: Contract,
    packed: Packed,
    how: Mapping[str, Any],
    versions: Mapping[str, str],
    licence: str | None,
) -> None:
    """Write the files that people and shells read.

    Args:
        folder: of the submission, with model and wheels.
        name: of the image.
        contract: by which it is called.
        packed: the model.
        how: content of submission.json.
        versions: package -> version.
        licence: of the weights; None: not stated.
    """
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    description, cuda = packed.description, how["device"] == "cuda"
    channels = list(description["channel_names"].values())
    labels = [label for label in description["labels"] if label not in ("background", "ignore")]
    weights = torch.load(next(packed.folder.glob(f"fold_*/{CHECKPOINT}")), weights_only=True)
    plan = read_json(packed.folder / "plans.json")
    network = network_of(plan, packed.folder.name.split("__")[-1])
    run = call_of(contract, name, how["device"])
    fill = partial(
        filled, python=python, name=name, cuda=cuda, run=run, ending=description["file_ending"],
        about=contract.about, limit=contract.limit, dataset=packed.dataset,
        channels=", ".join(map(str, channels)), channel_count=len(channels),
        labels=", ".join(map(str, labels)), licence=licence or "not stated: ask its authors",
        trained_by=packed.trained_by, epochs=packed.epochs, checksums=packed.checksums,
        folds=", ".join(sorted(path.name[5:] for path in packed.folder.glob("fold_*"))),
        speed=how["speed"], step=how["step"], version=semi_nnunet.__version__, **network,
        parameters=sum(value.numel() for value in weights["network_weights"].values()),
        nnunet=importlib.metadata.version("nnunetv2"), torch=versions["torch"],
    )  # fmt: skip
    for file in (*SHELL, "MODEL_CARD.md"):
        write_text(folder / file, fill(f"{file}.j2"))
    for file in ("install.sh", "predict.sh"):
        (folder / file).chmod(0o755)
    own = {"name": OWN, "version": semi_nnunet.__version__, "licence": "Apache-2.0"}
    rows = [{"name": one, "version": version, "licence": licence_of(one)}
            for one, version in versions.items()]  # fmt: skip
    write_text(folder / "THIRD_PARTY.md", filled("THIRD_PARTY.md.j2", rows=[own, *rows]))
    write_text(folder / "LICENSE", own_licence())
    parts = parts_of(folder)
    total = sum(part.size for part in parts)
    write_text(folder / "README.md", fill("README.md.j2", parts=parts, total=total))


def call_of(contract: Contract, name: str, device: str) -> str:
    """The line by which organisers run an image; one without CUDA is tried without their GPU."""
    line = contract.line(name)
    return line if device == "cuda" else line.replace(" --gpus device=1", "")


def network_of(plan: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """The network's class, patch and spacing, for the model card."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    one = PlansManager(dict(plan)).get_configuration(configuration)
    return {
        "network": one.network_arch_class_name.rpartition(".")[2],
        "patch": " x ".join(map(str, one.patch_size)),
        "spacing": " x ".join(f"{value:g}" for value in one.spacing),
    }


def own_licence() -> str:
    """The text of this package's licence, from where it is installed or beside its source."""
    about = importlib.metadata.distribution("semi_nnunet")
    beside = Path(semi_nnunet.__file__).parents[1] / "LICENSE"
    texts = [about.read_text(name) for name in LICENCES]
    if beside.is_file():
        texts.append(beside.read_text(encoding="utf-8"))
    return next((text for text in texts if text), "Apache License 2.0\n")


def filled(template: str, /, **values: Any) -> str:
    """A template with its values."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False,  # noqa: S701
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def parts_of(folder: Path) -> tuple[Part, ...]:
    """The files and folders of a submission with their bytes, the largest first."""
    found = []
    for path in folder.iterdir():
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        name = path.name + ("/" if path.is_dir() else "")
        size = sum(file.stat().st_size for file in files)
        found.append(Part(name, size, WHAT.get(path.name, "this page")))
    return tuple(sorted(found, key=lambda part: -part.size))
