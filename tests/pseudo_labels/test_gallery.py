"""The page of a selection shows its most and its least certain images."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.pseudo_labels.gallery import SHOWN, as_uri, histogram, picture_of, write_page
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.util.files import read_json, write_json
from tests.report.parsed_page import Elements


def test_the_histogram_tells_kept_from_dropped():
    bars = histogram([0.1, 0.1, 0.2, 0.9], limit=0.3)
    assert bars[0][1] == 1.0 and bars[0][2] and not bars[-1][2]


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


def test_the_slice_on_which_most_is_labelled_is_shown(request_of_pool):
    case, *_ = request_of_pool.cases
    labels = spread(request_of_pool, case)
    shown = picture_of(request_of_pool, case, 0.1, True, CLASSES)
    for z in range(len(labels)):  # the others may be anything
        if z != len(labels) - 2:
            labels[z] = 0
    write_labels(request_of_pool, case, labels)
    assert picture_of(request_of_pool, case, 0.1, True, CLASSES).layer == shown.layer
    write_labels(request_of_pool, case, np.zeros_like(labels))
    nothing = picture_of(request_of_pool, case, 0.1, True, CLASSES)
    assert nothing.layer != shown.layer and nothing.image.startswith("data:image/png;base64,")


def test_ignored_voxels_are_not_drawn(request_of_pool):
    case, *_ = request_of_pool.cases
    labels = spread(request_of_pool, case)
    before = picture_of(request_of_pool, case, 0.1, True, CLASSES)
    labels[len(labels) - 2, 12:, :] = 4  # the next after the classes
    write_labels(request_of_pool, case, labels)
    assert picture_of(request_of_pool, case, 0.1, True, CLASSES).layer == before.layer


def test_few_images_are_shown_once_the_surest_first(request_of_pool, tmp_path):
    scores = dict(zip(request_of_pool.cases, (0.3, 0.1, 0.4, 0.2), strict=True))
    kept = [case for case in scores if scores[case] < 0.25]
    write_page(tmp_path / "page.html", request_of_pool, scores, kept, "entropy")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(.*?)<br>([\d.]+)(.*?)</figcaption>", page)
    assert captions == [
        (case, f"{score:.4f}", "" if case in kept else ", left out")
        for case, score in sorted(scores.items(), key=lambda pair: pair[1])
    ]
    assert "2 of 4 unlabelled images selected" in page and "From 0.1000" in page
    assert "The least certain" not in page and "to 0.4000" in page
    assert not re.search(r'src="(?!data:)', page)


def test_of_many_images_both_ends_are_shown(request_of_pool, tmp_path):
    case, *_ = request_of_pool.cases
    for number in range(3 * SHOWN):
        shutil.copy(
            request_of_pool.cases[case][0], request_of_pool.images / f"m{number}_0000.nii.gz"
        )
        shutil.copy(
            request_of_pool.labels / f"{case}.nii.gz", request_of_pool.labels / f"m{number}.nii.gz"
        )
    scores = {f"m{number}": number / 100 for number in range(3 * SHOWN)}
    write_page(tmp_path / "page.html", replace(request_of_pool), scores, ["m0"], "entropy")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    surest, unsure = page.split("<h2>The least certain</h2>")
    assert re.findall(r"<figcaption>m(\d+)<", surest) == [str(n) for n in range(SHOWN)]
    last = [str(n) for n in range(2 * SHOWN, 3 * SHOWN)]
    assert re.findall(r"<figcaption>m(\d+)<", unsure) == last[::-1]


HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_wherever_it_stands(name, request_of_pool, pool, tmp_path):
    plain, hostile = (
        Elements(page_of(one, request_of_pool, pool.models[0].folder, tmp_path))
        for one in ("plainname", name)
    )
    without_slash = name.replace("/", "")  # of a file
    assert hostile.found == plain.found and hostile.scripts == plain.scripts == []
    text = hostile.text.replace(name, "plainname").replace(without_slash, "plainname")
    assert text == plain.text
    assert text.count("plainname") == 3 + 4 + 1 + 1  # classes, cases, score and model


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


def test_bars_are_the_numbers_of_cases_from_the_lowest_score_to_the_highest():
    values = np.random.default_rng(0).random(100).tolist()
    bars = histogram(values, limit=0.5)
    counts, edges = np.histogram(values, len(bars))
    assert [edge for edge, _, _ in bars] == pytest.approx(edges[:-1])
    assert [height * counts.max() for _, height, _ in bars] == pytest.approx(counts)
    assert [kept for _, _, kept in bars] == [edge <= 0.5 for edge in edges[:-1]]
    assert len(histogram([0.2], 0.2)) == 5 and len(histogram(values * 9, 1.0)) == 30


def test_pictures_are_inline_as_they_are():
    assert as_uri(b"\x89PNG", "png") == "data:image/png;base64,iVBORw=="
