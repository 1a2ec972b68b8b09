"""The list of converters is complete, and works from Python as on the command line."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet import convert as convert_data
from semi_nnunet.datasets import converters
from semi_nnunet.datasets.converters import CONVERTERS, converter_module
from semi_nnunet.util.errors import UserError
from tests.datasets.converting import Converter
from tests.datasets.test_kvasir import source  # noqa: F401  (a fixture)


def test_every_converter_is_listed() -> None:
    folder = Path(converters.__file__).parent
    texts = {path.stem: path.read_text() for path in folder.glob("*.py")}
    modules = {name for name, text in texts.items() if "-> Conversion:" in text}
    assert modules == set(CONVERTERS)
    for name in CONVERTERS:
        assert callable(converter_module(name).convert)


def test_python_and_the_command_make_the_same_data_set(
    source: Path,  # noqa: F811
    convert: Converter,
) -> None:
    dataset = convert("kvasir", source, "--incomplete")
    again = convert_data("kvasir", str(source), 700, processes=1, incomplete=True)
    assert again.folder == dataset and not again.is_new  # with the same defaults
    assert (again.counts["Tr"], again.counts["Ts"], again.published) == (8, 2, ())
    polyps = partial(convert_data, "kvasir", source, 701, "Polyps", processes=1, incomplete=True)
    resized = polyps(size=16)
    assert resized.is_new and resized.folder.name == "Dataset701_Polyps"
    assert not polyps(size=np.int64(16)).is_new


def test_mistakes_are_reported_before_anything_is_written(
    source: Path,  # noqa: F811
    convert: Converter,
) -> None:
    with pytest.raises(UserError, match="-np must be 1 or more, got 0"):
        convert_data("kvasir", source, 700, processes=0, incomplete=True)
    with pytest.raises(UserError, match=r"options\.seed: must be >= 0"):
        convert_data("kvasir", source, 700, incomplete=True, seed=-1)
    with pytest.raises(UserError, match="did you mean 'incomplete'"):
        convert_data("kvasir", source, 700, incomplet=True)
    assert not list(convert.raw.iterdir())
