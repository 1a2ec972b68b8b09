"""Package a trained model as a submission: a folder to build and run without network."""

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
from semi_nnunet.challenge.entry import DESCRIPTION, MODEL
from semi_nnunet.challenge.needs import OWN, find_needed_packages, normalise_name, read_licence
from semi_nnunet.challenge.packed_model import PackedModel, open_model, pack_model
from semi_nnunet.inference.model import ALIKE, EXACT, make_prediction_options
from semi_nnunet.raw.layout import FINAL_CHECKPOINT, PLANS_JSON
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import folder_aside, read_json, write_json, write_text
from semi_nnunet.util.markdown import plain

WORKSPACE = "/workspace"
INPUTS, OUTPUTS = "inputs", "outputs"  # below the workspace
SHELL_CALL = '/bin/bash -c "sh predict.sh"'


@dataclass(frozen=True)
class Contract:
    """The way in which organisers run a submission.

    Args:
        name: of the challenge.
        device: "cuda" if a GPU is provided, else "cpu".
        options: of ``docker container run``.
        call: command in the container; empty: that of the image.
        limit: seconds for a case; None: the rules have no limit that we know of.
        about: a sentence for people.
    """

    name: str
    device: str
    options: str
    call: str
    limit: float | None
    about: str

    def line(self, image: str, inputs: str = "$PWD/inputs", outputs: str = "$PWD/outputs") -> str:
        """Return the line that organisers type.

        Args:
            image: name of the image.
            inputs, outputs: folders outside the container.
        """
        words = [
            "docker container run", self.options, "--rm", f"-v {inputs}/:{WORKSPACE}/{INPUTS}/",
            f"-v {outputs}/:{WORKSPACE}/{OUTPUTS}/", f"{image}:latest", self.call,
        ]  # fmt: skip
        return " ".join(word for word in words if word)


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract(
            "flare22", "cuda", "--shm-size=28gb -m 28G --gpus device=1", SHELL_CALL, 60.0,
            "FLARE 2022: one case a call, a GPU, 28 GB of memory, 60 seconds",
        ),
        Contract(
            "flare24", "cpu", "--shm-size=28gb -m 28G", SHELL_CALL, None,
            "FLARE 2024, laptop task: one case a call, no GPU",
        ),
        Contract("generic", "cpu", "--network none", "", None,
                 "any number of cases a call, no GPU, no network"),
    )
}  # fmt: skip


def find_contract(name: str) -> Contract:
    """Return the contract of a challenge.

    >>> find_contract("flare22").limit
    60.0

    Raises:
        UserError: the challenge is unknown.
    """
    if name not in CONTRACTS:
        raise UserError(
            f"--contract must be one of {', '.join(CONTRACTS)}, got {name}",
            fix="choose generic, which fits challenges that give an input and an output folder",
        )
    return CONTRACTS[name]


TEMPLATES = Path(__file__).parent / "templates"
SHELL = ("Dockerfile", "apptainer.def", "install.sh", "predict.sh")
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)")
LICENCES = ("LICENSE", "licenses/LICENSE")
CONTENTS = {
    MODEL: "weights, plans and labels, nothing of the training",
    "wheels": "pinned Python packages, among them this program",
    "Dockerfile": "for docker, podman and buildah",
    "apptainer.def": "for Apptainer",
    "install.sh": "run by both of them",
    "predict.sh": "called by organisers",
    DESCRIPTION: "options of the prediction, and the contract",
    "requirements.txt": "versions and checksums of the wheels",
    "LICENSE": "licence of the program",
    "MODEL_CARD.md": "description of the model, and its limits",
    "THIRD_PARTY.md": "licences of the wheels",
}


@dataclass(frozen=True)
class SubmissionPart:
    """A file or folder of a submission.

    Args:
        name: in the submission.
        size: bytes.
        what: a description for people.
    """

    name: str
    size: int
    what: str


@dataclass(frozen=True)
class PackagedSubmission:
    """A submission on disk.

    Args:
        folder: of all files.
        name: for the image.
        contract: by which it is called.
        call: the line by which organisers run it.
        parts: its files and folders, with sizes.
    """

    folder: Path
    name: str
    contract: Contract
    call: str
    parts: tuple[SubmissionPart, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(item.size for item in self.parts)


def package_model(
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
) -> PackagedSubmission:
    """Write a folder from which a container is built and run without network.

    :func:`semi_nnunet.package` documents the arguments; ``speed`` is one of
    :func:`semi_nnunet.inference.model.make_prediction_options`.
    """
    folder = Path(out).expanduser().absolute()
    wheel_source = None if wheel_folder is None else Path(wheel_folder).expanduser()
    problems = list[Problem]()
    with collect_errors(problems, "pip"):
        wheels.find_pip_version()
    with collect_errors(problems, "--contract"):
        rules = find_contract(contract)
        device = device or rules.device
    with collect_errors(problems, "-o"):
        pinned = require_package_options(folder, device, pins)
    with collect_errors(problems, "--step-size"):
        make_prediction_options(speed, torch.device("cpu"), step=step)
    if wheel_source is not None and not any(wheel_source.glob("*.whl")):
        got = "none" if wheel_source.is_dir() else "no folder"
        message = f"must be a folder of wheels, got {got}"
        problems.append(Problem(f"--wheels {wheel_source}", message, "correct the path"))
    index = () if extra_index_url is None else ("--extra-index-url", extra_index_url)
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "submission"
    with ExitStack() as stack:
        with collect_errors(problems, "-m"):
            trained = stack.enter_context(open_model(model, folds))
        raise_if_any("the submission cannot be packaged:", problems)
        aside = stack.enter_context(folder_aside(folder, "Nothing was packaged"))
        aside.mkdir(parents=True)
        packed = pack_model(trained, aside / MODEL, exact=speed == EXACT)
        options = {"model": packed.folder.name, "speed": speed, "step": step, "device": device}
        options |= {"contract": rules.name, "limit": rules.limit}
        write_json(aside / DESCRIPTION, options)
        ending = packed.description["file_ending"]
        versions = find_needed_packages(aside, device == "cuda", ending) | pinned
        fetched = wheels.fetch_wheels(versions, aside / "wheels", index, wheel_source)
        for stale in (path for path in fetched if path.name.startswith("semi_nnunet-")):
            stale.unlink()
        wheels.write_own_wheel(aside / "wheels")
        fetched = sorted((aside / "wheels").glob("*.whl"))
        wheels.write_requirements(fetched, aside / "requirements.txt")
        write_submission_texts(aside, name, rules, packed, options, versions, licence)
    call = format_call(rules, name, device)
    return PackagedSubmission(folder, name, rules, call, list_submission_parts(folder))


def require_package_options(
    folder: Path, device: str | None, pins: Sequence[str]
) -> dict[str, str]:
    """Check options before long work.

    Returns:
        Name -> version of the pinned packages.

    Raises:
        UserError: lists all problems.
    """
    problems = []
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problems.append(Problem(str(folder), "exists already", "choose another -o"))
    if device not in ("cpu", "cuda", None):  # None: the contract is unknown
        message = f"must be cpu or cuda, got {device}"
        problems.append(Problem("--device", message, "choose cpu for a machine without GPU"))
    if device == "cuda" and torch.version.cuda is None:
        message = "needs a PyTorch with CUDA, got one without"
        problems.append(
            Problem("--device cuda", message, "choose --device cpu, or install another")
        )
    versions = {}
    for pin in pins:
        if match := PIN.fullmatch(pin):
            versions[normalise_name(match[1])] = match[2]
        else:
            message = f"must be NAME==VERSION, got {pin}"
            problems.append(Problem("--pin", message, "for example --pin torch==2.13.0+cpu"))
    raise_if_any("the submission cannot be packaged:", problems)
    return versions


def write_submission_texts(
    folder: Path,
    name: str,
    contract: Contract,
    packed: PackedModel,
    options: Mapping[str, Any],
    versions: Mapping[str, str],
    licence: str | None,
) -> None:
    """Write the files for people and shells.

    Args:
        folder: of the submission, with model and wheels.
        name: of the image.
        contract: by which it is called.
        packed: the model.
        options: content of submission.json.
        versions: package -> version.
        licence: of the weights; None: not stated.
    """
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    description, cuda = packed.description, options["device"] == "cuda"
    channels = list(description["channel_names"].values())
    labels = [label for label in description["labels"] if label not in ("background", "ignore")]
    weights = torch.load(next(packed.folder.glob(f"fold_*/{FINAL_CHECKPOINT}")), weights_only=True)
    plans = read_json(packed.folder / PLANS_JSON)
    network = describe_network(plans, packed.folder.name.split("__")[-1])
    run = format_call(contract, name, options["device"])
    fill = partial(
        fill_template, python=python, name=name, cuda=cuda, run=run,
        ending=description["file_ending"], about=contract.about, limit=contract.limit,
        dataset=plain(packed.dataset), channel_count=len(channels),
        channels=", ".join(map(plain, channels)), labels=", ".join(map(plain, labels)),
        licence=plain(licence or "not stated: ask its authors"),
        trained_by=plain(packed.trained_by), epochs=packed.epochs, checksums=packed.checksums,
        folds=", ".join(sorted(path.name[5:] for path in packed.folder.glob("fold_*"))),
        speed=options["speed"], step=options["step"], version=semi_nnunet.__version__, **network,
        parameters=sum(value.numel() for value in weights["network_weights"].values()),
        nnunet=importlib.metadata.version("nnunetv2"), torch=versions["torch"],
    )  # fmt: skip
    for file in (*SHELL, "MODEL_CARD.md"):
        write_text(folder / file, fill(f"{file}.j2"))
    for file in ("install.sh", "predict.sh"):
        (folder / file).chmod(0o755)
    own_row = {"name": OWN, "version": semi_nnunet.__version__, "licence": "Apache-2.0"}
    rows = [{"name": wheel, "version": version, "licence": read_licence(wheel)}
            for wheel, version in versions.items()]  # fmt: skip
    write_text(folder / "THIRD_PARTY.md", fill_template("THIRD_PARTY.md.j2", rows=[own_row, *rows]))
    write_text(folder / "LICENSE", read_own_licence())
    parts = list_submission_parts(folder)
    total = sum(item.size for item in parts)
    write_text(folder / "README.md", fill("README.md.j2", parts=parts, total=total))


def format_call(contract: Contract, name: str, device: str) -> str:
    """Return the line by which organisers run an image, which asks for a GPU only with CUDA.

    >>> "--gpus" in format_call(find_contract("flare22"), "team", device="cpu")
    False
    >>> "--gpus all" in format_call(find_contract("generic"), "team", device="cuda")
    True
    """
    line = contract.line(name)
    if device != "cuda":
        return line.replace(" --gpus device=1", "")
    return line if "--gpus" in line else line.replace(" run ", " run --gpus all ", 1)


def describe_network(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return the network's class, patch and spacing, for the model card."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans)).get_configuration(configuration)
    return {
        "network": plain(manager.network_arch_class_name.rpartition(".")[2]),
        "patch": " x ".join(map(str, manager.patch_size)),
        "spacing": " x ".join(f"{value:g}" for value in manager.spacing),
    }


def read_own_licence() -> str:
    """Return the text of this package's licence, as installed or next to its source."""
    about = importlib.metadata.distribution("semi_nnunet")
    source_file = Path(semi_nnunet.__file__).parents[1] / "LICENSE"
    texts = [about.read_text(name) for name in LICENCES]
    if source_file.is_file():
        texts.append(source_file.read_text(encoding="utf-8"))
    return next((text for text in texts if text), "Apache License 2.0\n")


def fill_template(template: str, /, **values: Any) -> str:
    """Fill a template of a submission with values."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False,  # noqa: S701
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def list_submission_parts(folder: Path) -> tuple[SubmissionPart, ...]:
    """Return the files and folders of a submission with their bytes, the largest first."""
    items = []
    for path in folder.iterdir():
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        name = path.name + ("/" if path.is_dir() else "")
        size = sum(file.stat().st_size for file in files)
        items.append(SubmissionPart(name, size, CONTENTS.get(path.name, "this page")))
    return tuple(sorted(items, key=lambda item: -item.size))
