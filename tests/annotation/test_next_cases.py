"""Tests of the cases to annotate next: what is never chosen, pages, models, and bad input."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import semi_nnunet
from semi_nnunet.annotation.choosing import CasePool, PoolScores, choose_from_pool
from semi_nnunet.annotation.next_cases import choose_next_cases, remove_unchanged_proposals
from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.layout import WRITTEN_FILE
from semi_nnunet.runs.launching import JobLauncher
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, read_json, write_json
from semi_nnunet.verify.reports import CaseReport
from tests.annotation.conftest import Loop
from tests.conftest import no_processes
from tests.pseudo_labels.conftest import copy_dataset


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with no_processes():
        yield


def chosen_cases(number: int, **options: object) -> list[str]:
    choice = choose_next_cases("977", number, **options)
    return [chosen.case for chosen in choice.cases]


def copy_image(loop: Loop, source: str, target: str, noise: float = 0.0) -> None:
    image = sitk.ReadImage(str(loop.raw / source))
    voxels = sitk.GetArrayFromImage(image).astype(np.float32)
    voxels += noise * np.random.default_rng(0).normal(size=voxels.shape)
    changed = sitk.GetImageFromArray(voxels)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(loop.raw / target))


def name_patients(loop: Loop, expression: str) -> None:
    path = loop.raw / "dataset.json"
    write_json(path, {**read_json(path), "patient": expression})


@pytest.mark.parametrize("rule", ["typical", "random"])
def test_a_choice_is_repeatable_and_has_unlabelled_cases_only(loop, rule):
    first = chosen_cases(3, rule=rule)
    assert chosen_cases(3, rule=rule, out="elsewhere") == first
    assert len(set(first)) == 3
    assert {*first} <= {f"phantom_{n:04d}" for n in range(4, 8)}


@pytest.mark.parametrize("rule", ["typical", "random"])
def test_never_two_cases_of_a_patient(loop, rule):
    name_patients(loop, "(phantom_000)[4567]")
    choice = choose_next_cases("977", 3, rule=rule)
    assert len(choice.cases) == 1 and "3 cases were asked for" in " ".join(choice.notes)


@pytest.mark.parametrize("rule", ["typical", "random"])
def test_never_a_near_twin_of_a_labelled_or_chosen_case(loop, rule):
    copy_image(loop, "imagesTr/phantom_0000_0000.nii.gz", "imagesUn/leak_0000.nii.gz", 1e-3)
    copy_image(loop, "imagesUn/phantom_0004_0000.nii.gz", "imagesUn/twin_0000.nii.gz", 1e-3)
    shutil.copy(
        loop.raw / "imagesUn/phantom_0005_0000.nii.gz", loop.raw / "imagesUn/copy_0000.nii.gz"
    )
    choice = choose_next_cases("977", 9, rule=rule)
    names = {chosen.case for chosen in choice.cases}
    assert len(names) == 4 and "leak" not in names
    assert len(names & {"phantom_0004", "twin"}) == len(names & {"phantom_0005", "copy"}) == 1
    assert "labelled image" in " ".join(choice.notes)


def test_hidden_labels_do_not_change_the_choice(loop):
    first = chosen_cases(2)
    for path in (loop.root / "hidden").iterdir():
        path.write_bytes(b"")
    extra = loop.raw / "labelsUn"
    extra.mkdir()
    (extra / "phantom_0004.nii.gz").write_bytes(b"x")
    assert chosen_cases(2, out="again") == first


def test_a_choice_without_any_labelled_case_and_preprocessed_data(loop):
    shutil.rmtree(loop.preprocessed)
    for name in ("imagesTr", "labelsTr"):
        shutil.rmtree(loop.raw / name)
    choice = choose_next_cases("977", 2)
    assert len(choice.cases) == 2 and not choice.notes and not loop.preprocessed.exists()


def test_the_page_and_table_show_every_case(loop, capsys):
    assert main(["next", "-d", "977", "-n", "2", "-o", "next cases"]) == 0
    rows = read_csv(Path("next cases/next.csv"))[1]
    shown, page = capsys.readouterr().out, Path("next cases/next.html").read_text(encoding="utf-8")
    assert len(rows) == 2
    for row in rows:
        assert row["case"] in shown and f"<h3>{row['case']}</h3>" in page
        assert row["reason"] in page and row["reason"] in shown
    assert page.count('<img class="base" src="data:image/png') == 2
    assert not re.search(r'src="(?!data:)', page) and "docs/annotation.md" in page
    assert "semi_nnunet accept -d Dataset977_Loop" in page


def test_unchanged_images_are_not_decoded_again(loop, monkeypatch):
    shutil.rmtree(loop.preprocessed)
    first, decoded = chosen_cases(2), []
    monkeypatch.setattr(
        "semi_nnunet.verify.integrity.inspect_file", lambda path, *_, **__: decoded.append(path)
    )
    assert chosen_cases(2) == first and not decoded


def test_a_damaged_image_is_left_out_and_counted(loop):
    (loop.raw / "imagesUn/phantom_0004_0000.nii.gz").write_bytes(b"half")
    choice = choose_next_cases("977", 4)
    assert len(choice.cases) == 3 and "damaged" in " ".join(choice.notes)


def test_a_class_that_no_label_shows_is_named(loop):
    path = loop.raw / "dataset.json"
    content = read_json(path)
    content["labels"] = {**content["labels"], "unseen": max(content["labels"].values()) + 1}
    write_json(path, content)
    assert "unseen" in " ".join(choose_next_cases("977", 1).notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "uncertain"}, "needs a model"),
        ({"rule": "random-foreground"}, "needs a model"),
        ({"proposals": True}, "needs a model"),
        ({"views": ["flips"]}, "needs a model"),
        ({"rule": "random", "models": ["977/M"]}, "not used"),
        ({"rule": "best"}, "does not exist"),
        ({"models": ["no_such_model"], "proposals": True}, "no_such_model"),
        ({"models": ["977/M"]}, "not used"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_work(loop, options, message):
    with pytest.raises(UserError, match=message):
        choose_next_cases("977", 2, **options)
    assert not Path("next_cases").exists()


def test_without_unlabelled_images_there_is_nothing_to_choose(loop):
    shutil.rmtree(loop.raw / "imagesUn")
    with pytest.raises(UserError, match="imagesUn"):
        choose_next_cases("977", 2)


def test_the_output_must_be_a_folder(loop):
    Path("taken").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="taken"):
        choose_next_cases("977", 2, out="taken")


def test_the_front_door_refuses_a_number_below_one(loop):
    with pytest.raises(UserError, match="-n must be"):
        semi_nnunet.next("977", 0)


# ---- scores of models ----


def make_pool(cases: int = 30) -> CasePool:
    random = np.random.default_rng(0)
    reports = tuple(CaseReport(f"c{n:02d}", "unlabelled", str(n), ()) for n in range(cases))
    groups = tuple(report.case for report in reports)
    raw = RawDataset(Path("Dataset001_X"), {}, ())
    return CasePool(raw, reports, random.normal(size=(cases, 3)), np.zeros((0, 3)), groups, ())


def test_uncertain_cases_are_preferred_and_each_class_has_its_turn():
    pool, rare = make_pool(), np.arange(30) < 4
    uncertainty = np.where(np.arange(30) % 2, 0.9, 0.01)
    strata = {"rare": rare, "common": ~rare, "invisible": np.zeros(30, bool)}
    scores = PoolScores(uncertainty, "entropy", strata, {"rare": 1, "common": 9, "invisible": 0})
    for seed in range(10):
        chosen = choose_from_pool(pool, scores, "uncertain", 4, seed)
        assert chosen == choose_from_pool(pool, scores, "uncertain", 4, seed)
        assert [int(item.case[1:]) < 4 for item in chosen] == [True, False, True, False]
        assert sum(item.uncertainty == 0.9 for item in chosen) >= 3
        assert "rare, which 1 labelled" in chosen[0].reason
    draws = {choose_from_pool(pool, scores, "uncertain", 4, seed)[1].case for seed in range(10)}
    assert len(draws) > 3  # random, not always the most uncertain


def test_random_foreground_ignores_the_uncertainty():
    pool, seen = make_pool(), np.arange(30) < 6
    for uncertainty in (np.zeros(30), np.linspace(0, 1, 30)):
        scores = PoolScores(uncertainty, "entropy", {"organ": seen}, {"organ": 3})
        chosen = choose_from_pool(pool, scores, "random-foreground", 5, 1)
        names = [item.case for item in chosen]
        assert all(int(name[1:]) < 6 for name in names)
        assert names == [
            item.case for item in choose_from_pool(pool, scores, "random-foreground", 5, 1)
        ]


@pytest.mark.slow
def test_models_choose_and_their_labels_come_back(pool, tmp_path, monkeypatch):
    raw = copy_dataset(pool, tmp_path, monkeypatch)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "own"))  # the fixture trains in the other
    choice = choose_next_cases(
        raw.name, 2, pool.names, rule="uncertain", proposals=True,
        launcher=JobLauncher(device="cpu"),
    )  # fmt: skip
    assert choice.rule == "uncertain" and len(choice.cases) == 2
    names = sorted(chosen.case for chosen in choice.cases)
    labels = tmp_path / "next_cases" / "labels"
    assert sorted(path.name for path in labels.glob("*.nii.gz")) == [f"{n}.nii.gz" for n in names]
    page = choice.page.read_text(encoding="utf-8")
    assert page.count('class="layer"') == 2 and "disagreement is" in page
    command = re.search(r"<pre>semi_nnunet (accept .*?)</pre>", page)
    assert command is not None and "--proposals" in command[1]
    with pytest.raises(UserError, match="still the proposal"):
        semi_nnunet.accept(raw.name, labels, proposals=shlex.split(choice.accept)[-1])
    for folder in (labels, labels.with_name("segmentations")):  # they know what was proposed
        with pytest.raises(UserError, match="still the proposal") as refused:
            semi_nnunet.accept(raw.name, folder)
        assert len(refused.value.problems) == 2
    label = labels / f"{names[0]}.nii.gz"
    image = sitk.ReadImage(str(label))
    before = label.read_bytes()
    sitk.WriteImage(sitk.Cast(image, sitk.sitkInt32), str(label))  # as a program saves it again
    with pytest.raises(UserError, match="still the proposal") as refused:
        semi_nnunet.accept(raw.name, labels)
    assert label.read_bytes() != before and len(refused.value.problems) == 2
    image[0, 0, 0] = 1 - min(1, image[0, 0, 0])
    sitk.WriteImage(image, str(label))
    edited = label.read_bytes()
    again = choose_next_cases(
        raw.name, 2, pool.names, rule="uncertain", proposals=True,
        launcher=JobLauncher(device="cpu"),
    )  # fmt: skip
    assert again == choice and label.read_bytes() == edited  # a corrected label stays
    other = choose_next_cases(
        raw.name, 2, pool.names[:1], rule="uncertain", proposals=True, seed=1,
        launcher=JobLauncher(device="cpu"),
    )  # fmt: skip
    proposed = shlex.split(other.accept)[-1]
    with pytest.raises(UserError) as refused:  # no label of the two models counts as reviewed
        semi_nnunet.accept(raw.name, labels, proposals=proposed)
    untouched = {Path(problem.where).name for problem in refused.value.problems}
    assert untouched == {path.name for path in labels.glob("*.nii.gz")} - {label.name}
    assert label.read_bytes() == edited
    typical = tmp_path / "typical"
    for names in (pool.names[:1], pool.names):
        few = choose_next_cases(
            raw.name, 2, names, proposals=True, out=typical, launcher=JobLauncher(device="cpu")
        )
        chosen = sorted(f"{item.case}.nii.gz" for item in few.cases)
        for folder in ("labels", "proposed/labels"):  # no other image is labelled
            assert sorted(path.name for path in (typical / folder).glob("*.nii.gz")) == chosen
        shown = {path.name.rsplit("_", 1)[0] for path in (typical / "images").iterdir()}
        assert shown == {item.case for item in few.cases}
    for folder in (typical, typical / "labels"):
        with pytest.raises(UserError, match="still the proposal"):
            semi_nnunet.accept(raw.name, folder)
    foreground = choose_next_cases(
        raw.name, 2, pool.names[:1], rule="random-foreground", out="other",
        launcher=JobLauncher(device="cpu"),
    )  # fmt: skip
    assert len(foreground.cases) == 2
    description = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    description["labels"] = {"background": 0, "another": 1}
    (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(UserError, match="cannot label"):
        choose_next_cases(raw.name, 2, pool.names, rule="uncertain", out="third")


def test_only_unchanged_proposals_are_removed(tmp_path):
    """A person may correct the label, its segmentation, remove one of both, or draw a new one."""
    kinds = {"labels": ".nii.gz", "segmentations": ".seg.nrrd"}
    for folder, ending in kinds.items():
        (tmp_path / folder).mkdir()
        written = Manifest(tmp_path / folder, tmp_path / folder / WRITTEN_FILE)
        for case in ("unchanged", "label", "segmentation", "single"):
            path = tmp_path / folder / f"{case}{ending}"
            path.write_text(f"proposal for {case}")
            written.add(ManifestEntry.of(case, "proposal", [path], {}))
    (tmp_path / "labels/label.nii.gz").write_text("corrected")
    (tmp_path / "segmentations/segmentation.seg.nrrd").write_text("corrected")
    (tmp_path / "labels/single.nii.gz").unlink()
    (tmp_path / "segmentations/single.seg.nrrd").write_text("corrected")
    (tmp_path / "labels/drawn.nii.gz").write_text("by hand")
    kept = [
        "labels/drawn.nii.gz", "labels/label.nii.gz", "labels/segmentation.nii.gz",
        "segmentations/label.seg.nrrd", "segmentations/segmentation.seg.nrrd",
        "segmentations/single.seg.nrrd",
    ]  # fmt: skip
    for _ in range(3):
        remove_unchanged_proposals(tmp_path, ".nii.gz")
        present = [
            f"{folder}/{path.name}"
            for folder, ending in kinds.items()
            for path in sorted((tmp_path / folder).glob(f"*{ending}"))
        ]
        assert present == kept
