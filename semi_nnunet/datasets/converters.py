"""The converters of published benchmarks into raw data sets."""

from __future__ import annotations

import argparse
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from semi_nnunet.util.errors import Problem, UserError, raise_if_any
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


class OptionParser(argparse.ArgumentParser):
    """A parser of a converter's options, all optional; raises UserError."""

    def add_argument(self, *names: Any, **about: Any) -> argparse.Action:
        """Add an option that is not required."""
        return super().add_argument(*names, **about | {"required": False})

    def error(self, message: str) -> NoReturn:
        """Raise an error without ending the program."""
        raise UserError(message)


def parser_of_options(module: ModuleType) -> OptionParser:
    """Return the parser of a converter's options."""
    parser = OptionParser(add_help=False, allow_abbrev=False)
    module.add_options(parser)
    return parser


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
    from nnunetv2.paths import nnUNet_raw

    from semi_nnunet.datasets.conversion import write_conversion
    from semi_nnunet.raw.layout import name_new_dataset, require_paths

    require_positive({"-np": processes})
    module = converter_module(name)
    complete = add_defaults(module, name, options)
    require_paths("raw")
    raw = Path(nnUNet_raw.require())
    conversion = module.convert(Path(source).expanduser(), **complete)
    target = name_new_dataset(raw, number, conversion.name if new_name is None else new_name, "-d")
    is_new = write_conversion(conversion, target, {"converter": name, **complete}, processes)
    published = tuple(len(cases) for cases in conversion.subsets)
    return Converted(target, is_new, dict(conversion.counts), published)


def add_defaults(module: ModuleType, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a converter, with defaults for the missing ones.

    Raises:
        UserError: an option does not exist, or a required one is missing.
    """
    defaults = vars(parser_of_options(module).parse_args([]))
    values = {key: options.get(key, default) for key, default in defaults.items()}
    problems = list(unknown("option", list(options), defaults))
    for key, parameter in inspect.signature(module.convert).parameters.items():
        if key in values and parameter.default is parameter.empty and values[key] is None:
            problems.append(Problem(f"option {key!r}", "is missing", "add it"))
    raise_if_any(f"{name} cannot be converted:", problems)
    return values
