"""The surest cases are taken, by a score of the models or of earlier labels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.data.manifest import Entry
from semi_nnunet.pseudo_labels.choice import (
    Choice,
    case_scores,
    choose,
    score_problems,
    scores_of_labellings,
)
from semi_nnunet.pseudo_labels.pool import Request, source_of
from semi_nnunet.util.errors import UserError


def scored(folder: Path, scores: dict[str, dict[str, float]]) -> Request:
    """A pool that was labelled, as far as its lists say."""
    for name in ("labels", "parts"):
        (folder / name).mkdir()
    lines = []
    for case, values in scores.items():
        image = folder / f"{case}_0000.png"
        image.touch()
        (labels := folder / f"labels/{case}.png").touch()
        facts = {"uncertainty": values, "ignored": 0.0}
        lines.append(json.dumps(asdict(Entry.of(case, source_of([str(image)]), [labels], facts))))
    (folder / "parts" / "part_0.jsonl").write_text("\n".join(lines) + "\n")
    request = Request(folder, folder, ())
    request.__dict__["cases"] = {case: [str(folder / f"{case}_0000.png")] for case in scores}
    return request


def test_the_choice_is_of_the_surest(tmp_path):
    scores = {f"case{i}": {"entropy": i / 10} for i in range(10)}
    request = scored(tmp_path, scores)

    def chosen(choice: Choice) -> dict[str, float]:
        return choose(case_scores(request, choice), choice)

    assert list(chosen(Choice(keep=0.2))) == ["case0", "case1"]
    assert len(chosen(Choice(keep=3))) == 3
    assert len(chosen(Choice(keep=1.0))) == 10
    assert list(chosen(Choice(most=0.05))) == ["case0"]
    assert len(chosen(Choice(keep=0.5, most=0.25))) == 3
    with pytest.raises(UserError, match="no case has an uncertainty of at most -1"):
        chosen(Choice(most=-1))
    with pytest.raises(UserError, match="'disagreement' needs several models"):
        chosen(Choice(score="disagreement"))


def test_cases_set_aside_are_not_scored_and_all_of_them_are_too_many(tmp_path):
    request = scored(tmp_path, {"a": {"entropy": 0.1}, "b": {"entropy": 0.2}})
    assert case_scores(request, Choice(), {"a"}) == {"b": 0.2}
    with pytest.raises(UserError, match="no case is left to choose from"):
        choose(case_scores(request, Choice(), {"a", "b"}), Choice())


def test_records_of_earlier_versions_are_known_again():
    assert Choice(0.5).record() == {"keep": 0.5, "most": None, "score": "entropy"}


def test_ignored_voxels_are_not_compared(pool, tmp_path):
    folders = [tmp_path / "before", tmp_path / "now"]
    (image,) = sorted(pool.images.iterdir())[:1]
    case = image.name.removesuffix("_0000.nii.gz")
    labels = np.zeros(sitk.ReadImage(str(image)).GetSize()[::-1], np.uint8)
    labels[:4] = 1
    for ignored, folder in zip((4, 0), folders, strict=True):  # half of it: 4 is ignored
        now = labels.copy()
        now[:2] = ignored or 1
        (folder / "labels").mkdir(parents=True)
        written = sitk.GetImageFromArray(now)
        written.CopyInformation(sitk.ReadImage(str(image)))
        sitk.WriteImage(written, str(folder / "labels" / f"{case}.nii.gz"))
    request = Request(pool.images, folders[1], (pool.names[0],))
    assert max(request.trained[0].dataset_json["labels"].values()) == 3
    for score in ("change", "checkpoints"):
        choice = Choice(score=score, before=(str(folders[0]),))
        assert scores_of_labellings(request, choice, [case]) == {case: 0.0}


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 1.0, 2.0, 7.0, 99.0])
def test_whoever_is_taken_is_at_least_as_sure_as_whoever_is_not(keep):
    rng = np.random.default_rng(0)
    scores = {f"case{n}": float(rng.integers(5)) / 5 for n in range(20)}  # many are equal
    taken = choose(scores, Choice(keep=keep))
    assert len(taken) == min(20, max(1, round(20 * keep) if keep <= 1 else int(keep)))
    assert taken == {case: scores[case] for case in taken}
    left = [scores[case] for case in scores.keys() - taken]
    assert not left or max(taken.values()) <= min(left)
    shuffled = dict(sorted(scores.items(), key=lambda pair: -pair[1]))
    assert choose(shuffled, Choice(keep=keep)) == taken  # whatever their order


def test_earlier_labels_are_asked_for_by_the_scores_that_compare_with_them(tmp_path):
    (tmp_path / "there" / "labels").mkdir(parents=True)
    there, gone = str(tmp_path / "there"), str(tmp_path / "gone")

    def fixes(score: str, *before: str) -> list[str]:
        return [problem.fix for problem in score_problems(score, before)]

    assert fixes("entropy") == fixes("disagreement") == fixes("change", there) == []
    assert "--before FOLDER" in fixes("change")[0] and "--before FOLDER" in fixes("checkpoints")[0]
    assert fixes("entropy", there) == ["leave it out, or choose one of these scores"]
    assert len(fixes("entropy", there, gone)) == 2
    (problem,) = score_problems("checkpoints", [there, gone])
    assert problem.where == f"--before {gone}" and "has no folder labels" in problem.what


def test_earlier_folders_are_recorded_as_they_are_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Choice(score="change", before=("first", str(tmp_path / "second"))).located()
    assert found.before == (str(tmp_path / "first"), str(tmp_path / "second"))
    assert found.located() == found
    record = json.loads(json.dumps(found.record()))
    assert record["before"] == list(found.before) and Choice(**record).record() == record


def test_images_in_which_every_voxel_is_ignored_are_not_scored(tmp_path):
    request = scored(tmp_path, {"a": {"entropy": 0.1}, "b": {"entropy": 0.2}})
    part = tmp_path / "parts" / "part_0.jsonl"
    first, second = part.read_text().splitlines()
    part.write_text("\n".join([first, second.replace('"ignored": 0.0', '"ignored": 1.0')]) + "\n")
    assert case_scores(request, Choice()) == {"a": 0.1}


def test_earlier_labels_of_another_shape_or_of_no_case_are_refused(pool, tmp_path):
    request = Request(pool.images, tmp_path / "now", (pool.names[0],))
    case, *_ = request.cases
    for name, shape in (("now", (4, 8, 8)), ("before", (4, 8, 9)), ("empty", ())):
        (tmp_path / name / "labels").mkdir(parents=True)
        if shape:
            written = sitk.GetImageFromArray(np.ones(shape, np.uint8))
            sitk.WriteImage(written, str(tmp_path / name / "labels" / f"{case}.nii.gz"))
    for name, says in (("before", "differ in their shapes"), ("empty", f"has no labels of {case}")):
        choice = Choice(score="change", before=(str(tmp_path / name),))
        with pytest.raises(UserError, match=f"{says}.*Fix: label the same images"):
            scores_of_labellings(request, choice, [case])
