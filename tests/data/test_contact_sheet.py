"""The sheet shows each image once, with its literal name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semi_nnunet.raw.description import RawDataset
from semi_nnunet.util.greys import find_grey_window, greys
from semi_nnunet.verify.contact_sheet import (
    PIXELS,
    SheetPanel,
    draw_sheet,
    make_panel,
    write_sheet,
)
from tests.data.raw_datasets import make, make_png, voxels, write


def picture(name: str = "case", words: str = "words", aspect: float = 1.0) -> SheetPanel:
    return SheetPanel(name, words, np.linspace(0, 1, 20).reshape(4, 5), aspect)


@pytest.mark.parametrize(
    ("labelled", "others", "grid"),
    [(1, 1, (1, 2)), (3, 1, (3, 2)), (1, 2, (2, 2)), (3, 12, (3, 5)), (2, 12, (3, 5))],
)
def test_labelled_images_are_in_the_first_column(
    labelled: int, others: int, grid: tuple[int, int]
) -> None:
    known = [picture(f"known {n}") for n in range(labelled)]
    figure = draw_sheet(known, [picture(f"other {n}") for n in range(others)])
    places = np.reshape(np.array(figure.axes, dtype=object), grid)
    titles = [[axes.get_title() for axes in row] for row in places]
    shown = [row[0] for row in titles]
    assert [name for name in shown if name] == [one.name for one in known]
    beside = [name for row in titles for name in row[1:] if name]
    assert beside == [f"other {n}" for n in range(others)]


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)", "$x^2$", "$\\frac{", "a, \"b\"; 'c'", "心臓", "n" * 200, "a %s {0} \\n"],
)
@pytest.mark.filterwarnings("error")
def test_a_name_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    shown = draw_sheet([], [picture(name)]).axes[1].get_title()
    assert shown.replace("\n", "") == name or (len(name) > 64 and shown.endswith("..."))
    write_sheet(tmp_path / "sheet.png", [picture("labelled")], [picture(name, name)])
    with Image.open(tmp_path / "sheet.png") as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 300


@pytest.mark.parametrize("aspect", [1e-6, 1e6])
def test_flat_voxels_are_not_drawn_as_a_line(tmp_path: Path, aspect: float) -> None:
    write_sheet(tmp_path / "sheet.png", [], [picture(aspect=aspect)])
    assert 0.2 < draw_sheet([], [picture(aspect=aspect)]).axes[1].get_aspect() < 5


def test_the_middle_slice_is_shown_in_its_physical_shape(tmp_path: Path) -> None:
    root, array = make(tmp_path), voxels(0, (7, 30, 20))
    write(root / "imagesUn/u_0000.nii.gz", array, spacing=(1.0, 2.0, 5.0))
    raw = RawDataset.of(root)
    case = next(case for case in raw.cases if case.case == "u")
    shown = make_panel(raw, case, "words")
    assert (shown.name, shown.words, shown.aspect) == ("u", "words", 2.0)
    middle = array[3].astype(np.float32)
    np.testing.assert_allclose(shown.slice, greys(middle, *find_grey_window(middle)))


def test_colours_are_shown_and_large_pictures_made_small(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    array = voxels(3, (3 * PIXELS + 1, PIXELS, 3), np.uint8)
    Image.fromarray(array).save(root / "imagesUn/u_0000.png")
    raw = RawDataset.of(root)
    case = next(case for case in raw.cases if case.case == "u")
    shown = make_panel(raw, case, "")
    assert shown.slice.ndim == 3 and max(shown.slice.shape) <= PIXELS
    assert shown.aspect == 4.0


@pytest.mark.parametrize("value", [0.0, -7.0, 1e20])
def test_an_even_slice_is_black(value: float) -> None:
    image = np.full((1, 4, 5), value, np.float32)
    assert not greys(image, *find_grey_window(image)).any()
