"""The JSON files of a model that came from somebody else: read with care, before anything is made.

nnU-Net builds the network by calling whatever ``plans.json`` names, and imports it first. A name
such as ``torch.hub.load`` would execute a file of the model's folder. Therefore only classes of
networks are called, and only those of packages that are known.
"""

from __future__ import annotations

import os
import pydoc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from semi_nnunet.training.checkpoints import EXECUTE
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json

REQUIRED = {"plans.json": ("configurations", "plans_name"), "dataset.json": ("labels",)}
MAX_JSON = 50_000_000  # bytes; nnU-Net's largest, of 10,000 cases, has 2 million
NETWORKS = ("dynamic_network_architectures", "nnunetv2", "semi_nnunet", "monai")
LAYERS = ("torch.nn", *NETWORKS)


def require_json(path: Path, keys: tuple[str, ...] | None) -> Any:
    """Read a description of a stranger and check its size, depth and type.

    Raises:
        UserError: it is none.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise UserError(f"{path} must be a file", fix="put the one that the model came with there")
    if path.stat().st_size > MAX_JSON:
        raise UserError(f"{path} must have at most {MAX_JSON:,} bytes, got {path.stat().st_size:,}")
    content: Any = read_json(path)
    if keys is not None and not (isinstance(content, dict) and set(keys) <= set(content)):
        raise UserError(f"{path} must be an object with {', '.join(keys)}")
    return content


def require_known_networks(plans: Mapping[str, Any], where: str) -> None:
    """Check plans of a stranger before a network is made of them; arguments as of
    :func:`network_problems`.

    Raises:
        UserError: they name code that is no known network.
    """
    raise_if_any("This model is not opened:", network_problems(plans, where))


def network_problems(plans: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield what plans name as a network or layer that is none of a package that is known.

    Args:
        plans: content of ``plans.json``.
        where: to call the file.
    """
    if os.environ.get(EXECUTE) == "1":
        return
    fix = f"give another model; if you trust its author as you trust a program, set {EXECUTE}=1"
    configurations = plans["configurations"]
    if not isinstance(configurations, Mapping):
        yield Problem(where, f"'configurations' must be an object, got {configurations!r:.80}", fix)
        return
    for key, one in configurations.items():
        architecture = one.get("architecture") if isinstance(one, Mapping) else None
        for name, packages in named_code(architecture):
            if not is_network_code(name, packages):
                what = f"{key} names {name!r:.80} as a network or layer, which is none of "
                yield Problem(where, what + ", ".join(packages), fix)


def named_code(architecture: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield every name that nnU-Net would import, and the packages that it may be of."""
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
    """Whether a dotted name is a class of torch modules that one of the packages defines.

    Nothing is imported but modules of these packages. A function is none, nor is what one of their
    modules has imported from elsewhere.
    """
    if not isinstance(name, str) or not name.startswith(tuple(f"{one}." for one in packages)):
        return False
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport:
        return False
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return False
    return found.__module__.startswith(tuple(f"{one}." for one in packages))
