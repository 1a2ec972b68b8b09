"""The converters of published benchmarks into raw data sets."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from semi_nnunet.util.errors import Problem, raise_if_any
from semi_nnunet.util.names import require_positive, unknown

CONVERTERS = {
    "acdc": "cine MR of the heart; 3, 7 or 14 of 70 patients labelled",
    "busi": "breast ultrasound",
    "covid": "slices of lung CT with COVID-19 lesions",
    "flare22": "abdominal CT, 13 organs; 50 labelled, 2000 unlabelled",
    "flare23": "abdominal CT, 13 organs and tumours; 2200 partially labelled, 1800 unlabelled",
    "kvasir": "colour endoscopy, polyps",
    "la2018": "MR of the left atrium; 4, 8 or 16 of 80 labelled",
    "mmwhs": "whole heart, from CT to MR or from MR to CT",
    "mnms": "cine MR of the heart, from three vendors to a fourth",
    "pancreas": "CT of the Medical Segmentation Decathlon, pancreas and tumour merged",
    "retouch": "slices of retinal OCT of three vendors, 3 kinds of fluid",
    "synapse": "abdominal CT (BTCV), 13 organs; 4 of 20 labelled",
}


@dataclass(frozen=True)
class Converted:
    """A raw data set that a converter made.

    Args:
        folder: of the data set.
        is_new: False if it existed, and nothing was written.
        counts: part, such as "Tr" of imagesTr -> number of cases.
        published: numbers of cases in the published lists of labelled cases.
    """

    folder: Path
    is_new: bool
    counts: dict[str, int]
    published: tuple[int, ...]


def converter_module(name: str) -> ModuleType:
    """Import the module of one converter.

    Raises:
        UserError: there is no such converter.
    """
    raise_if_any("There is no such converter:", unknown("converter", [name], CONVERTERS))
    return importlib.import_module(f"semi_nnunet.datasets.{name}")


def list_converter_options(name: str) -> dict[str, inspect.Parameter]:
    """Return the options of a converter, with their types.

    >>> sorted(list_converter_options("mmwhs"))
    ['seed', 'target']
    """
    function = converter_module(name).convert
    hints, signature = get_type_hints(function, include_extras=True), inspect.signature(function)
    return {
        key: parameter.replace(annotation=hints[key])
        for key, parameter in signature.parameters.items()
        if key != "source"
    }


def find_converter_problems(name: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield options that the converter lacks, or needs and does not get, and wrong values."""
    existing = list_converter_options(name)
    yield from unknown("option", list(options), existing)
    for key, parameter in existing.items():
        value, is_required = options.get(key), parameter.default is parameter.empty
        if is_required and value is None:
            yield Problem(f"options.{key}", "is missing", "add it")
        elif key in options and (rule := find_broken_rule(parameter.annotation, value)):
            yield Problem(f"options.{key}", f"{rule}, got {value!r}", "correct it")


def find_broken_rule(hint: Any, value: Any) -> str | None:
    """Return the rule of a type or a range that a value breaks, or None.

    >>> from semi_nnunet.datasets.options import Seed
    >>> find_broken_rule(Seed, 3), find_broken_rule(Seed, -1), find_broken_rule(Seed, "x")
    (None, 'must be >= 0', 'must be a valid integer')
    """
    from pydantic import TypeAdapter, ValidationError  # the help needs neither

    try:
        TypeAdapter(hint).validate_python(value, strict=True)
        for metadata in hint.__metadata__ if value is not None else ():
            for check in metadata.validator:
                check(int, value)
    except ValidationError as error:
        return re.sub(r"^\w+ should", "must", error.errors()[0]["msg"])
    except ValueError as error:
        return str(error).replace("Must", "must").removesuffix(".")
    return None


def convert(
    name: str,
    source: str | Path,
    number: int,
    new_name: str | None = None,
    processes: int = 2,
    **options: Any,
) -> Converted:
    """Make an nnU-Net raw data set from the files of a published benchmark.

    :func:`semi_nnunet.convert` documents the arguments.
    """
    import numpy as np
    from nnunetv2.paths import nnUNet_raw

    from semi_nnunet.datasets.conversion import write_conversion
    from semi_nnunet.datasets.source import DownloadFolder
    from semi_nnunet.raw.layout import name_new_dataset, require_paths
    from semi_nnunet.util.provenance import LINKED

    require_positive({"-np": processes})
    options = {k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()}
    raise_if_any(f"{name} cannot be converted:", find_converter_problems(name, options))
    complete = {
        key: options.get(key, option.default)
        for key, option in list_converter_options(name).items()
    }
    require_paths("raw")
    raw = Path(nnUNet_raw.require())
    root = Path(source).expanduser()
    conversion = converter_module(name).convert(root, **complete)
    target = name_new_dataset(raw, number, conversion.name if new_name is None else new_name)
    record = {"converter": name, **complete}
    is_linked = bool(complete.get("symlink"))
    inputs = {
        path.relative_to(root).as_posix(): LINKED if is_linked else path
        for path in DownloadFolder(root, name).walk()
    }
    is_new = write_conversion(conversion, target, record, processes, inputs)
    published = tuple(len(cases) for cases in conversion.subsets)
    return Converted(target, is_new, dict(conversion.counts), published)
