"""``semi_nnunet convert``."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from semi_nnunet.verbs.options import NewId, option

if TYPE_CHECKING:
    from semi_nnunet.datasets.converters import Converted

logger = logging.getLogger(__name__)


def convert(
    name: str,
    source: str | Path,
    new_id: NewId,
    new_name: Annotated[str | None, option()] = None,
    processes: Annotated[int, option("-np")] = 2,
    **options: Any,
) -> Converted:
    """Make an nnU-Net raw data set from the files of a published benchmark.

        semi_nnunet convert acdc ~/ACDC --new-id 502
        semi_nnunet convert mmwhs ~/MMWHS --new-id 531 --target mr
        semi_nnunet convert NAME --help             expected files and options

    Every case whose label is known gets it. To hide labels, make a new data set next:

        semi_nnunet split -d 502 --new-id 602 --labelled 6 --published

    The published choices of labelled cases are written to labelled_subsets.json. All missing and
    unexpected files are named before anything is written. semi_nnunet run --list lists the recipes
    of published experiments.

    Args:
        name: Name of a converter.
        source: Folder of the downloaded files.
        new_id: Number of the new data set, from 1 to 999.
        new_name: Name of the new data set (default: the benchmark's).
        processes: Worker processes.
        options: Options of the converter, as semi_nnunet convert NAME --help lists them, with "_"
            for "-"; others have their defaults.

    Returns:
        The new data set in nnUNet_raw, and its numbers of cases.

    Raises:
        UserError: there is no such converter or option, the files are not as expected, or the
            number is taken.

    Example:
        >>> convert("kvasir", "Kvasir-SEG", 150, incomplete=True).counts["Tr"]
        4
    """
    from semi_nnunet.datasets.converters import convert as convert_benchmark

    made = convert_benchmark(name, source, new_id, new_name, processes, **options)
    counts = ", ".join(f"{cases} in images{part}" for part, cases in made.counts.items() if cases)
    status = "wrote" if made.is_new else "nothing to do, it exists:"
    logger.info(f"{status} {made.folder}: {counts}")
    if made.counts["Un"]:
        logger.info(f"next: semi_nnunet preprocess -d {new_id}")
        return made
    subset = "--labelled N" + (" --published" if made.published else "")
    sizes = f" (N: {', '.join(map(str, made.published))})" if made.published else ""
    logger.info(f"next: semi_nnunet split -d {new_id} --new-id NEW_ID {subset}{sizes}")
    return made


def converter_function(name: str) -> Callable[..., Converted]:
    """Return :func:`convert` for one converter, with its options in the signature.

    Raises:
        UserError: there is no such converter.
    """
    from semi_nnunet.datasets.converters import converter_module, list_converter_options
    from semi_nnunet.util.verb_commands import parameter_types

    def convert_one(source: Path, /, **arguments: Any) -> Converted:
        return convert(name, source, **arguments)

    source = inspect.signature(convert_one).parameters["source"].replace(annotation=Path)
    parameters, types = inspect.signature(convert).parameters, parameter_types(convert)
    shared = [
        parameters[key].replace(annotation=types[key])
        for key in ("new_id", "new_name", "processes")
    ]
    own = [
        parameter.replace(annotation=Annotated[parameter.annotation, option()])
        for parameter in list_converter_options(name).values()
    ]
    options = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared, *own)]
    convert_one.__signature__ = inspect.Signature([source, *options])  # type: ignore[attr-defined]
    convert_one.__annotations__ = {p.name: p.annotation for p in (source, *options)}
    about = str(converter_module(name).__doc__)
    files = about.replace("\n\n    ", "\n\nExpected files:\n\n    ", 1)
    meanings = str(convert.__doc__).partition("Args:")[2].partition("Returns:")[0]
    convert_one.__doc__ = f"{files}\nArgs:{meanings}"
    return convert_one
