"""The most certain images are selected, shown, and used by trainings until this is undone."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.pseudo_labels.select import (
    CERTAIN,
    SHOWN,
    SLICES,
    THRESHOLD,
    UNCERTAIN,
    make_gallery_picture,
    split_into_sections,
    write_gallery,
)
from semi_nnunet.reporting.shown_cases import Frame
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import parse_csv, read_json, write_json
from tests.report.parsed_page import Elements


@pytest.fixture
def dataset(pool, prepared_dataset, tmp_path, monkeypatch) -> Path:
    """The phantom, raw and preprocessed, in folders of the test's own; the preprocessed one."""
    phantom = prepared_dataset("labels", 1)
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        shutil.copytree(getattr(phantom, name), tmp_path / name / phantom.raw.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "preprocessed" / phantom.raw.name


def test_trainings_use_the_selected_images(dataset, pool, make_trainer, capfd):
    words = ["select", "-d", dataset.name, "-m", *pool.names, "--device", "cpu"]
    assert main([*words, "--score", "disagreement", "--keep", "2"]) == 0
    assert "2 of 4 unlabelled images" in capfd.readouterr().out
    selected = read_json(dataset / "semi_selected.json")["cases"]
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    assert trainer.unlabelled_cases() == selected and len(selected) == 2
    record = read_json(dataset / "semi_selected.json")
    assert {*record["images"]} == {*selected}
    other = {**record, "images": {**record["images"], selected[0]: "another"}}  # exchanged since
    write_json(dataset / "semi_selected.json", other)
    with pytest.raises(UserError, match=f"changed since .*{selected[0]}"):
        make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()
    write_json(dataset / "semi_selected.json", record)
    rows = [row for _, row in parse_csv(Path("selection.csv").read_text(encoding="utf-8"))]
    assert rows[0] == ["case", "score", "kept"] and len(rows) == 5
    assert sorted(case for case, _, is_selected in rows[1:] if is_selected == "1") == selected
    page = Path("selection.html").read_text(encoding="utf-8")
    assert "2 of 4 unlabelled images selected" in page
    assert page.count('<figure class="viewer') == 4 and page.count(", left out</span>") == 2
    assert page.count('src="data:image/png;base64,') == 8
    assert not re.search(r'src="(?!data:)', page)
    assert main(["select", "-d", dataset.name, "--undo"]) == 0
    assert len(make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("score", ["change", "checkpoints"])
def test_labels_are_compared_with_those_of_earlier_models(score, dataset, pool, tmp_path, capfd):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, model in zip(folders, pool.names, strict=True):
        words = ["-i", str(pool.images), "-o", str(folder), "-m", model, "--device", "cpu"]
        assert main(["pseudo-label", *words]) == 0
    select_words = [
        "select",
        "-d",
        dataset.name,
        "-m",
        pool.names[1],
        "--device",
        "cpu",
        "--score",
        score,
    ]
    assert main(select_words) == 2
    assert "--before FOLDER" in capfd.readouterr().err
    assert (
        main([*select_words, "--before", str(folders[1])]) == 0
    )  # the same model: nothing changed
    rows = [row for _, row in parse_csv(Path("selection.csv").read_text(encoding="utf-8"))[1:]]
    assert {value for _, value, _ in rows} == {"0.000000"}
    assert main([*select_words, "--before", *map(str, folders)]) == 0
    rows = [row for _, row in parse_csv(Path("selection.csv").read_text(encoding="utf-8"))[1:]]
    for case, value, _ in rows:
        first_labels, second_labels = (
            sitk.GetArrayFromImage(sitk.ReadImage(folder / "labels" / f"{case}.nii.gz"))
            for folder in folders
        )
        if score == "change":  # of three labellings, of which the last two are equal
            expected = (
                min(1.0, np.mean(first_labels != second_labels) / np.mean(second_labels > 0)) / 2
            )
        else:
            iou = [
                ((first_labels == k) & (second_labels == k)).sum()
                / ((first_labels == k) | (second_labels == k)).sum()
                for k in np.union1d(first_labels, second_labels)
                if k
            ]
            expected = (1 - np.mean(iou) + 0) / 2
        assert float(value) == pytest.approx(expected, abs=1e-5)
    gone = rows[-1][0] if rows[-1][1] != "1.000000" else rows[0][0]
    (folders[0] / "labels" / f"{gone}.nii.gz").unlink()
    assert (
        main([*select_words, "--before", *map(str, folders)]) == 0
    )  # there is nothing to be sure by
    assert f"{gone},1.000000," in Path("selection.csv").read_text(encoding="utf-8")
    shutil.rmtree(folders[0] / "labels")
    (folders[0] / "labels").mkdir()
    assert main([*select_words, "--before", *map(str, folders)]) == 2
    assert "no labels of" in capfd.readouterr().err
    assert main([*select_words[:-2], "-o", "x.csv"]) == 2 and "HTML" in capfd.readouterr().err


def test_skipped_images_are_not_selected(dataset, pool):
    case = sorted(path.name[:-12] for path in pool.images.glob("*.nii.gz"))[0]
    write_json(dataset / "semi_skipped.json", {case: "bad"})
    words = ["select", "-d", dataset.name, "-m", pool.names[0], "--device", "cpu", "--keep", "1"]
    assert main(words) == 0
    assert case not in read_json(dataset / "semi_selected.json")["cases"]


def test_a_selection_of_other_cases_is_an_error(dataset, make_trainer):
    write_json(dataset / "semi_selected.json", {"cases": ["gone"]})
    with pytest.raises(UserError, match=r"1 image, .* select --undo"):
        make_trainer("SemiMeanTeacherTrainer", start=False).unlabelled_cases()


def test_a_page_that_cannot_be_written_is_reported_before_images_are_labelled(
    dataset, pool, monkeypatch, capsys
):
    def label_pool(*_):
        raise AssertionError("it labels")

    monkeypatch.setattr("semi_nnunet.pseudo_labels.select.label_pool", label_pool)
    words = ["select", "-d", dataset.name, "-m", pool.names[0], "--device", "cpu", "-o"]
    Path("held.csv").mkdir()
    for page, message in (
        ("gone/page.html", "folder gone"),
        ("held.html", "held.csv"),
    ):
        assert main([*words, page]) == 2
        assert message in capsys.readouterr().err


def test_select_without_a_trained_model_is_refused(dataset, capsys, tmp_path, monkeypatch):
    (tmp_path / "no_results").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "no_results"))
    assert main(["select", "-d", dataset.name]) == 2
    assert "no trained model" in capsys.readouterr().err


@pytest.fixture
def request_of_pool(pool) -> LabellingRequest:
    """A pool that somebody labelled: two voxels more in each slice than in the one before."""
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    request.labels.mkdir(parents=True)
    for case in request.cases:
        write_labels(request, case, make_labels(request, case))
    return request


def make_labels(request: LabellingRequest, case: str) -> np.ndarray:
    shape = sitk.ReadImage(request.cases[case][0]).GetSize()[::-1]
    labels = np.zeros(shape, np.uint8)
    for z in range(shape[0] - 1):
        labels[z, 5, 5 : 5 + 2 * z] = 1 + z % 2
    return labels


def write_labels(request: LabellingRequest, case: str, labels: np.ndarray) -> None:
    written = sitk.GetImageFromArray(labels)
    written.CopyInformation(sitk.ReadImage(request.cases[case][0]))
    sitk.WriteImage(written, str(request.labels / f"{case}.nii.gz"))


CLASSES = {"one": (1,), "two": (2,), "three": (3,)}


def first_frame(request: LabellingRequest, case: str) -> Frame:
    """The frame that a picture begins with."""
    viewer = make_gallery_picture(request, case, 0.1, True, CLASSES).viewer
    return viewer.frames[viewer.start]


def test_slices_can_be_scrolled_starting_with_the_largest_labelled_area(request_of_pool):
    case, *_ = request_of_pool.cases
    depth = len(make_labels(request_of_pool, case))
    picture = make_gallery_picture(request_of_pool, case, 0.1234, False, CLASSES)
    captions = [frame.caption for frame in picture.viewer.frames]
    labelled = [f"slice {z + 1} of {depth}" for z in range(1, depth - 1)]
    assert len(captions) == min(SLICES, len(labelled)) > 1 and set(captions) <= {*labelled}
    assert captions[picture.viewer.start] == labelled[-1]
    assert len({frame.layers["reference"] for frame in picture.viewer.frames}) == len(captions)
    assert picture.viewer.panels == {"reference": "0.1234, left out"}


def test_an_image_without_labels_has_one_slice(request_of_pool):
    case, *_ = request_of_pool.cases
    labelled_frame = first_frame(request_of_pool, case)
    write_labels(request_of_pool, case, np.zeros_like(make_labels(request_of_pool, case)))
    viewer = make_gallery_picture(request_of_pool, case, 0.1, True, CLASSES).viewer
    (nothing,) = viewer.frames
    assert nothing.layers != labelled_frame.layers and nothing.image.startswith(
        "data:image/png;base64,"
    )


def test_ignored_voxels_are_not_drawn(request_of_pool):
    case, *_ = request_of_pool.cases
    labels = make_labels(request_of_pool, case)
    frame = first_frame(request_of_pool, case)
    labels[len(labels) - 2, 12:, :] = 4  # the next after the classes
    write_labels(request_of_pool, case, labels)
    assert first_frame(request_of_pool, case) == frame


def find_captions(page: str) -> list[tuple[str, str]]:
    """Case, and what is said of it."""
    captions = re.findall(r"<h3>(.*?)</h3>.*?<span>(.*?)</span>", page, flags=re.DOTALL)
    return [(str(case), str(caption)) for case, caption in captions]


def test_few_images_are_shown_once_the_most_certain_first(request_of_pool, tmp_path):
    scores = dict(zip(request_of_pool.cases, (0.3, 0.1, 0.4, 0.2), strict=True))
    selected = [case for case in scores if scores[case] < 0.25]
    write_gallery(tmp_path / "page.html", request_of_pool, scores, selected, "entropy")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert find_captions(page) == [
        (case, f"{score:.4f}, {'selected' if case in selected else 'left out'}")
        for case, score in sorted(scores.items(), key=lambda pair: pair[1])
    ]
    assert "2 of 4 unlabelled images selected" in page and UNCERTAIN not in page
    for score, whose in ((0.1, "the most certain"), (0.2, "the last one"), (0.4, "the least")):
        assert f"<b>{score:.4f}</b><span>of {whose}" in page
    assert "uncertainty of 2 kept and 2 dropped cases" in page and 'class="x"' in page
    assert not re.search(r'src="(?!data:)', page) and "{{" not in page


@pytest.mark.parametrize("count", [1, 10, 20, 35])
def test_many_images_are_shown_at_both_ends_and_around_the_threshold(count):
    ranked = [f"m{number}" for number in range(36)]
    sections = split_into_sections(ranked, ranked[:count])
    assert sections[CERTAIN] == ranked[:SHOWN] and sections[UNCERTAIN] == ranked[-SHOWN:][::-1]
    half = SHOWN // 2
    around = ranked[max(0, count - half) : count + half]
    at_ends = sections[CERTAIN] + sections[UNCERTAIN]
    assert sections.get(THRESHOLD, []) == [case for case in around if case not in at_ends]
    every = [case for cases in sections.values() for case in cases]
    assert len(every) == len(set(every)) and {ranked[count - 1], ranked[count]} <= {*every}


def test_without_rejected_images_there_is_no_threshold_section():
    ranked = [f"m{number}" for number in range(3 * SHOWN)]
    assert list(split_into_sections(ranked, ranked)) == [CERTAIN, UNCERTAIN]
    few = split_into_sections(ranked[:SHOWN], ranked[:2])
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
    selected = ranked[: 2 * SHOWN]
    write_gallery(tmp_path / "page.html", replace(request_of_pool), scores, selected, "entropy")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    sections = split_into_sections(ranked, selected)
    assert re.findall(r"<h2>(.*?)</h2>", page) == list(sections) == [CERTAIN, THRESHOLD, UNCERTAIN]
    assert [name for name, _ in find_captions(page)] == [
        case_name for section in sections.values() for case_name in section
    ]


HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_plain_text_everywhere(name, request_of_pool, pool, tmp_path):
    plain, hostile = (
        Elements(make_page(text_name, request_of_pool, pool.models[0].folder, tmp_path))
        for text_name in ("plainname", name)
    )
    without_slash = name.replace("/", "")  # of a file
    assert hostile.found == plain.found and hostile.scripts == plain.scripts
    text = hostile.text.replace(name, "plainname").replace(without_slash, "plainname")
    assert text == plain.text
    assert text.count("plainname") == 3 + 4 + 1 + 1  # classes, cases, score and model
    assert len(plain.scripts) == 4 + 1  # the slices of each case, and what scrolls them


def make_page(name: str, request: LabellingRequest, model: Path, folder: Path) -> str:
    """The page of a pool whose data set, model, classes, cases and score have one name."""
    of_files = name.replace("/", "")
    images = folder / of_files / "images"
    shutil.copytree(request.images, images)
    for number, path in enumerate(sorted(images.iterdir())):
        path.rename(images / f"{of_files}{number}_0000.nii.gz")
    model_copy = folder / of_files / f"Dataset901_{of_files}" / "Trainer__plans__2d"
    shutil.copytree(model, model_copy)
    description = read_json(model_copy / "dataset.json")
    labels = {"background": 0, name: 1, f"{name}2": 2, f"{name}3": 3}
    write_json(model_copy / "dataset.json", {**description, "labels": labels})
    pool_request = LabellingRequest(images, folder / of_files / "out", (str(model_copy),))
    pool_request.labels.mkdir(parents=True)
    for case in pool_request.cases:
        write_labels(pool_request, case, make_labels(pool_request, case))
    scores = {case: number / 10 for number, case in enumerate(pool_request.cases)}
    write_gallery(folder / "page.html", pool_request, scores, [min(pool_request.cases)], name)
    return (folder / "page.html").read_text(encoding="utf-8")
