"""The page of a selection shows both ends of it, and the images around the threshold."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.pseudo_labels.gallery import (
    CERTAIN,
    SHOWN,
    SLICES,
    THRESHOLD,
    UNCERTAIN,
    picture_of,
    sections_of,
    write_page,
)
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.report.shown_cases import Frame
from semi_nnunet.util.files import read_json, write_json
from tests.report.parsed_page import Elements


@pytest.fixture
def request_of_pool(pool) -> Request:
    """A pool that somebody labelled: two voxels more in each slice than in the one before."""
    found = Request(pool.images, pool.out, (pool.names[0],))
    found.labels.mkdir(parents=True)
    for case in found.cases:
        write_labels(found, case, spread(found, case))
    return found


def spread(request: Request, case: str) -> np.ndarray:
    shape = sitk.ReadImage(request.cases[case][0]).GetSize()[::-1]
    labels = np.zeros(shape, np.uint8)
    for z in range(shape[0] - 1):
        labels[z, 5, 5 : 5 + 2 * z] = 1 + z % 2
    return labels


def write_labels(request: Request, case: str, labels: np.ndarray) -> None:
    written = sitk.GetImageFromArray(labels)
    written.CopyInformation(sitk.ReadImage(request.cases[case][0]))
    sitk.WriteImage(written, str(request.labels / f"{case}.nii.gz"))


CLASSES = {"one": (1,), "two": (2,), "three": (3,)}


def shown(request: Request, case: str) -> Frame:
    """The frame that a picture begins with."""
    viewer = picture_of(request, case, 0.1, True, CLASSES).viewer
    return viewer.frames[viewer.start]


def test_slices_are_there_to_scroll_beginning_with_that_on_which_most_is(request_of_pool):
    case, *_ = request_of_pool.cases
    depth = len(spread(request_of_pool, case))
    one = picture_of(request_of_pool, case, 0.1234, False, CLASSES)
    captions = [frame.caption for frame in one.viewer.frames]
    labelled = [f"slice {z + 1} of {depth}" for z in range(1, depth - 1)]
    assert len(captions) == min(SLICES, len(labelled)) > 1 and set(captions) <= {*labelled}
    assert captions[one.viewer.start] == labelled[-1]
    assert len({frame.layers["reference"] for frame in one.viewer.frames}) == len(captions)
    assert one.viewer.panels == {"reference": "0.1234, left out"}


def test_an_image_without_labels_has_one_slice(request_of_pool):
    case, *_ = request_of_pool.cases
    before = shown(request_of_pool, case)
    write_labels(request_of_pool, case, np.zeros_like(spread(request_of_pool, case)))
    viewer = picture_of(request_of_pool, case, 0.1, True, CLASSES).viewer
    (nothing,) = viewer.frames
    assert nothing.layers != before.layers and nothing.image.startswith("data:image/png;base64,")


def test_ignored_voxels_are_not_drawn(request_of_pool):
    case, *_ = request_of_pool.cases
    labels = spread(request_of_pool, case)
    before = shown(request_of_pool, case)
    labels[len(labels) - 2, 12:, :] = 4  # the next after the classes
    write_labels(request_of_pool, case, labels)
    assert shown(request_of_pool, case) == before


def captions_of(page: str) -> list[tuple[str, str]]:
    """Case, and what is said of it."""
    found = re.findall(r"<h3>(.*?)</h3>.*?<span>(.*?)</span>", page, flags=re.DOTALL)
    return [(str(case), str(said)) for case, said in found]


def test_few_images_are_shown_once_the_surest_first(request_of_pool, tmp_path):
    scores = dict(zip(request_of_pool.cases, (0.3, 0.1, 0.4, 0.2), strict=True))
    kept = [case for case in scores if scores[case] < 0.25]
    write_page(tmp_path / "page.html", request_of_pool, scores, kept, "entropy")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert captions_of(page) == [
        (case, f"{score:.4f}, {'selected' if case in kept else 'left out'}")
        for case, score in sorted(scores.items(), key=lambda pair: pair[1])
    ]
    assert "2 of 4 unlabelled images selected" in page and UNCERTAIN not in page
    for score, whose in ((0.1, "the most certain"), (0.2, "the last one"), (0.4, "the least")):
        assert f"<b>{score:.4f}</b><span>of {whose}" in page
    assert "uncertainty of 2 kept and 2 dropped cases" in page and 'class="x"' in page
    assert not re.search(r'src="(?!data:)', page) and "{{" not in page


@pytest.mark.parametrize("kept", [1, 10, 20, 35])
def test_of_many_images_both_ends_and_those_around_the_threshold_are_shown(kept):
    ranked = [f"m{number}" for number in range(36)]
    found = sections_of(ranked, ranked[:kept])
    assert found[CERTAIN] == ranked[:SHOWN] and found[UNCERTAIN] == ranked[-SHOWN:][::-1]
    half = SHOWN // 2
    around = ranked[max(0, kept - half) : kept + half]
    at_ends = found[CERTAIN] + found[UNCERTAIN]
    assert found.get(THRESHOLD, []) == [case for case in around if case not in at_ends]
    every = [case for cases in found.values() for case in cases]
    assert len(every) == len(set(every)) and {ranked[kept - 1], ranked[kept]} <= {*every}


def test_where_nothing_is_left_out_there_is_no_threshold():
    ranked = [f"m{number}" for number in range(3 * SHOWN)]
    assert list(sections_of(ranked, ranked)) == [CERTAIN, UNCERTAIN]
    few = sections_of(ranked[:SHOWN], ranked[:2])
    assert few == {CERTAIN: ranked[:SHOWN]}


def test_the_page_has_the_sections_in_their_order(request_of_pool, tmp_path):
    case, *_ = request_of_pool.cases
    for number in range(4 * SHOWN):
        name = f"m{number:02d}"
        shutil.copy(request_of_pool.cases[case][0], request_of_pool.images / f"{name}_0000.nii.gz")
        shutil.copy(
            request_of_pool.labels / f"{case}.nii.gz", request_of_pool.labels / f"{name}.nii.gz"
        )
    scores = {f"m{number:02d}": number / 100 for number in range(4 * SHOWN)}
    ranked = sorted(scores)
    kept = ranked[: 2 * SHOWN]
    write_page(tmp_path / "page.html", replace(request_of_pool), scores, kept, "entropy")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    parts = sections_of(ranked, kept)
    assert re.findall(r"<h2>(.*?)</h2>", page) == list(parts) == [CERTAIN, THRESHOLD, UNCERTAIN]
    assert [name for name, _ in captions_of(page)] == [
        one for part in parts.values() for one in part
    ]


HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_wherever_it_stands(name, request_of_pool, pool, tmp_path):
    plain, hostile = (
        Elements(page_of(one, request_of_pool, pool.models[0].folder, tmp_path))
        for one in ("plainname", name)
    )
    without_slash = name.replace("/", "")  # of a file
    assert hostile.found == plain.found and hostile.scripts == plain.scripts
    text = hostile.text.replace(name, "plainname").replace(without_slash, "plainname")
    assert text == plain.text
    assert text.count("plainname") == 3 + 4 + 1 + 1  # classes, cases, score and model
    assert len(plain.scripts) == 4 + 1  # the slices of each case, and what scrolls them


def page_of(name: str, request: Request, model: Path, folder: Path) -> str:
    """The page of a pool whose data set, model, classes, cases and score have one name."""
    of_files = name.replace("/", "")
    images = folder / of_files / "images"
    shutil.copytree(request.images, images)
    for number, path in enumerate(sorted(images.iterdir())):
        path.rename(images / f"{of_files}{number}_0000.nii.gz")
    there = folder / of_files / f"Dataset901_{of_files}" / "Trainer__plans__2d"
    shutil.copytree(model, there)
    description = read_json(there / "dataset.json")
    labels = {"background": 0, name: 1, f"{name}2": 2, f"{name}3": 3}
    write_json(there / "dataset.json", {**description, "labels": labels})
    found = Request(images, folder / of_files / "out", (str(there),))
    found.labels.mkdir(parents=True)
    for case in found.cases:
        write_labels(found, case, spread(found, case))
    scores = {case: number / 10 for number, case in enumerate(found.cases)}
    write_page(folder / "page.html", found, scores, [min(found.cases)], name)
    return (folder / "page.html").read_text(encoding="utf-8")
