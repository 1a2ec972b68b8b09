"""Read the JSON files of a model from an untrusted source, and check them before they are used.

nnU-Net imports and calls the network class named in ``plans.json``. A name such as
``torch.hub.load`` would execute a file of the model's folder. Therefore only network classes of
trusted packages are called.
"""

from __future__ import annotations

import math
import os
import pydoc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from semi_nnunet.raw.layout import DATASET_JSON, PLANS_JSON
from semi_nnunet.raw.plans import resolve_configuration
from semi_nnunet.training.checkpoints import EXECUTE
from semi_nnunet.util.errors import Problem, UserError, collect_errors
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import find_name_defect
from semi_nnunet.util.validation import fits

REQUIRED = {PLANS_JSON: ("configurations", "plans_name"), DATASET_JSON: ("labels",)}
MAX_JSON = 50_000_000  # bytes; nnU-Net's largest, of 10,000 cases, has 2 million
MAX_SIZE = 10_000  # layers, features or voxels in a network's arguments
MAX_VOXELS = 2**31  # of a patch
MAX_VALUE = 2**16  # of a label
RESTORE = "restore the file, or give another model"
ENDING = re.compile(r"(\.[A-Za-z0-9]+)+")
NAMED = ("plans_name", "dataset_name", "image_reader_writer", "label_manager")  # keys of plans
CONFIGURED = {  # key of a configuration -> its type
    "data_identifier": str,
    "preprocessor_name": str,
    "batch_size": int,
    "patch_size": tuple[int, ...],
    "spacing": tuple[float, ...],
    "normalization_schemes": tuple[str, ...],
    "use_mask_for_norm": tuple[bool, ...],
    "previous_stage": str | None,
}
NETWORKS = ("dynamic_network_architectures", "nnunetv2", "semi_nnunet", "monai")
LAYERS = ("torch.nn", *NETWORKS)


def read_model_json(path: Path, keys: tuple[str, ...] | None) -> Any:
    """Read an untrusted JSON file and check its size, depth, type and keys.

    Raises:
        UserError: a check failed.
    """
    if path.exists() and not path.is_file():  # reading a pipe would never end
        raise UserError(f"{path} must be a file", fix="put the one that the model came with there")
    if path.stat().st_size > MAX_JSON:
        raise UserError(f"{path} must have at most {MAX_JSON:,} bytes, got {path.stat().st_size:,}")
    content: Any = read_json(path)
    if keys is not None and not (isinstance(content, dict) and set(keys) <= set(content)):
        raise UserError(f"{path} must be an object with {', '.join(keys)}")
    return content


def find_description_problems(
    plans: Mapping[str, Any], configuration: str, description: Mapping[str, Any], folder: Path
) -> Iterator[Problem]:
    """Yield a problem for each value of a model's files that no trained model can have.

    Args:
        plans, description: content of plans.json and dataset.json.
        configuration: of the model.
        folder: of the model, for the problems.
    """
    yield from _find_label_problems(description, str(folder / DATASET_JSON))
    yield from find_plans_problems(plans, configuration, str(folder / PLANS_JSON))


def find_plans_problems(
    plans: Mapping[str, Any], configuration: str, path: str
) -> Iterator[Problem]:
    """Yield a problem for each value of plans that no trained model can have.

    Args:
        plans: untrusted content.
        configuration: of the model.
        path: of their file, for the problems.
    """
    problems = list[Problem]()
    for key in NAMED:
        if key in plans:
            yield from _find_name_problems(plans[key], key, path)
    if not fits(dict[str, dict[str, Any]], plans["configurations"]):
        yield Problem(path, "'configurations' must hold objects by their names", RESTORE)
        return
    with collect_errors(problems, path):
        resolved = resolve_configuration(plans, configuration) or {}
    if problems:
        yield from problems
        return
    for key, kind in CONFIGURED.items():
        if key in resolved and not fits(kind, resolved[key]):
            rule = f"{key!r} of {configuration} has another type: {resolved[key]!r:.80}"
            yield Problem(path, rule, RESTORE)
            return
    yield from _find_geometry_problems(plans, resolved, path)
    for key in ("data_identifier", "previous_stage"):
        if resolved.get(key) is not None:
            yield from _find_name_problems(resolved[key], key, path)


def _find_name_problems(name: Any, key: str, path: str) -> Iterator[Problem]:
    """Yield a problem for a name that leads out of a folder, or deceives readers."""
    if not isinstance(name, str) or not name or name.startswith(".") or {*name} & {"/", "\\"}:
        yield Problem(path, f"{key!r} must be a name without / and \\, got {name!r:.80}", RESTORE)
    elif defect := find_name_defect(name):
        yield Problem(path, f"{key!r} {defect}", RESTORE)


def _find_geometry_problems(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], path: str
) -> Iterator[Problem]:
    """Yield a problem for an impossible patch, spacing or order of axes."""
    patch, spacing = configuration.get("patch_size", (1, 1)), configuration.get("spacing", (1, 1))
    if len(patch) not in (2, 3) or min(patch) < 1 or math.prod(patch) > MAX_VOXELS:
        rule = f"must be 2 or 3 lengths above 0 of at most {MAX_VOXELS} voxels, got {patch}"
        yield Problem(path, f"'patch_size' {rule:.200}", RESTORE)
    if len(spacing) not in (2, 3) or not all(0 < step < math.inf for step in spacing):
        yield Problem(path, f"'spacing' must be 2 or 3 lengths above 0, got {spacing}", RESTORE)
    for key in ("transpose_forward", "transpose_backward"):
        axes = plans.get(key, [0, 1, 2])
        if not fits(tuple[int, ...], axes) or sorted(axes) != [0, 1, 2]:
            yield Problem(path, f"{key!r} must be an order of 0, 1, 2, got {axes!r:.80}", RESTORE)


def _find_label_problems(description: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Yield a problem for impossible labels, channels or endings of files."""
    labels, channels = (
        description[key] if key in description else description.get(other)
        for key, other in (("labels", ""), ("channel_names", "modality"))
    )
    value = Annotated[int, Field(ge=0, le=MAX_VALUE)]
    if not fits(dict[str, value | tuple[value, ...]], labels) or not labels:
        rule = f"'labels' must map names to numbers from 0 to {MAX_VALUE}"
        yield Problem(path, f"{rule}, got {labels!r:.80}", RESTORE)
        labels = {}
    if not fits(dict[str, str], channels) or not channels:
        rule = f"'channel_names' must map numbers to names, got {channels!r:.80}"
        yield Problem(path, rule, RESTORE)
        channels = {}
    for name in (*labels, *channels.values()):
        if not name.isprintable():
            rule = f"names must have no control characters or marks of direction, got {name!a:.80}"
            yield Problem(path, rule, RESTORE)
    order = description.get("regions_class_order")
    if not fits(tuple[value, ...] | None, order):
        rule = f"'regions_class_order' must be a list of labels, got {order!r:.80}"
        yield Problem(path, rule, RESTORE)
    ending = description.get("file_ending")
    if not isinstance(ending, str) or not ENDING.fullmatch(ending):
        rule = "'file_ending' must be letters and digits after points, such as .nii.gz"
        yield Problem(path, f"{rule}, got {ending!r:.80}", RESTORE)


def find_unknown_networks(plans: Mapping[str, Any], file_name: str) -> Iterator[Problem]:
    """Yield a problem for every network or layer class outside the trusted packages.

    >>> architecture = {"network_class_name": "torch.hub.load"}
    >>> plans = {"configurations": {"2d": {"architecture": architecture}}}
    >>> [problem.where for problem in find_unknown_networks(plans, "plans.json")]
    ['plans.json']

    Args:
        plans: content of ``plans.json``.
        file_name: of the plans in problems.
    """
    if os.environ.get(EXECUTE) == "1":
        return
    fix = f"give another model; if you trust its author as you trust a program, set {EXECUTE}=1"
    configurations = plans["configurations"]
    if not isinstance(configurations, Mapping):
        yield Problem(
            file_name, f"'configurations' must be an object, got {configurations!r:.80}", fix
        )
        return
    for key, configuration in configurations.items():
        is_mapping = isinstance(configuration, Mapping)
        architecture = configuration.get("architecture") if is_mapping else None
        for name, packages in list_named_code(architecture):
            if not is_network_code(name, packages):
                message = (
                    f"{key} names {name!r:.80} as a network or layer, which must be a class of "
                )
                yield Problem(file_name, message + ", ".join(packages), fix)


def find_size_problems(
    arguments: Any, weights: Mapping[str, Any], file_name: str
) -> Iterator[Problem]:
    """Yield a problem for numbers in a network's arguments that its weights cannot have.

    A network of ten million layers would be built for hours before its weights are compared.

    >>> [p.what for p in find_size_problems({"n_stages": 10**7}, {}, "plans.json")]
    ['n_stages must be at most 10000 in a network with 0 weights, got 10000000']

    Args:
        arguments: of the network in plans.
        weights: name -> tensor, of a checkpoint.
        file_name: of the plans in problems.
    """
    sizes = [size for tensor in weights.values() for size in tensor.shape]
    most = max([MAX_SIZE, len(weights), *sizes])
    for key, value in arguments.items() if isinstance(arguments, Mapping) else ():
        numbers = list(_list_numbers(value))
        largest = max([*numbers, len(numbers)], default=0)
        if key.startswith("n_"):  # layers: each has a tensor at least
            largest = max(largest, sum(numbers))
        if largest > most:
            rule = f"must be at most {most} in a network with {len(weights)} weights"
            yield Problem(file_name, f"{key} {rule}, got {largest}", "give another model")


def _list_numbers(value: Any) -> Iterator[float]:
    """Yield all numbers in a value of JSON."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _list_numbers(item)
    elif isinstance(value, (int, float)):
        yield abs(value)


def list_named_code(architecture: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield every name that nnU-Net would import, with the packages that may define it."""
    if architecture is None:  # inherited, or of older plans, whose networks nnU-Net chooses
        return
    if not isinstance(architecture, Mapping):
        yield architecture, NETWORKS
        return
    yield architecture.get("network_class_name"), NETWORKS
    kwargs = architecture.get("arch_kwargs", {})
    for key in architecture.get("_kw_requires_import", ()):
        if isinstance(kwargs, Mapping) and kwargs.get(key) is not None:
            yield kwargs[key], LAYERS


def is_network_code(name: Any, packages: tuple[str, ...]) -> bool:
    """Return whether a dotted name is a torch module class that one of the packages defines.

    Only modules of these packages are imported. Functions do not count, nor do classes that such a
    module has imported from elsewhere.

    >>> is_network_code("torch.nn.Conv2d", LAYERS), is_network_code("os.system", LAYERS)
    (True, False)
    """
    prefixes = tuple(f"{package}." for package in packages)
    if not isinstance(name, str) or not name.startswith(prefixes):
        return False
    try:
        code = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    is_network = isinstance(code, type) and issubclass(code, nn.Module)
    return is_network and code.__module__.startswith(prefixes)
