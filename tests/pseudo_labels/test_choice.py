"""The most certain cases are selected, by a score of the models or of earlier labels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.preprocessing.manifest import ManifestEntry
from semi_nnunet.pseudo_labels.choice import (
    SelectionRule,
    compare_labellings,
    find_score_problems,
    score_cases,
    select_cases,
)
from semi_nnunet.pseudo_labels.pool import LabellingRequest, format_records
from semi_nnunet.util.errors import UserError


def make_scored_pool(folder: Path, scores: dict[str, dict[str, float]]) -> LabellingRequest:
    """A pool that was labelled, as far as its lists say."""
    for name in ("labels", "parts"):
        (folder / name).mkdir()
    lines = []
    for case, values in scores.items():
        image = folder / f"{case}_0000.png"
        image.touch()
        (labels := folder / f"labels/{case}.png").touch()
        facts = {"uncertainty": values, "ignored": 0.0}
        lines.append(
            json.dumps(asdict(ManifestEntry.of(case, format_records([image]), [labels], facts)))
        )
    (folder / "parts" / "part_0.jsonl").write_text("\n".join(lines) + "\n")
    request = LabellingRequest(folder, folder, ())
    request.__dict__["cases"] = {case: [str(folder / f"{case}_0000.png")] for case in scores}
    return request


def test_the_most_certain_cases_are_selected(tmp_path):
    scores = {f"case{i}": {"entropy": i / 10} for i in range(10)}
    request = make_scored_pool(tmp_path, scores)

    def select(choice: SelectionRule) -> dict[str, float]:
        return select_cases(score_cases(request, choice), choice)

    assert list(select(SelectionRule(keep=0.2))) == ["case0", "case1"]
    assert len(select(SelectionRule(keep=3))) == 3
    assert len(select(SelectionRule(keep=1.0))) == 10
    assert list(select(SelectionRule(most=0.05))) == ["case0"]
    assert len(select(SelectionRule(keep=0.5, most=0.25))) == 3
    with pytest.raises(UserError, match="at most -1"):
        select(SelectionRule(most=-1))
    with pytest.raises(UserError, match="several models"):
        select(SelectionRule(score="disagreement"))


def test_excluded_cases_are_not_scored_and_not_all_may_be_excluded(tmp_path):
    request = make_scored_pool(tmp_path, {"a": {"entropy": 0.1}, "b": {"entropy": 0.2}})
    assert score_cases(request, SelectionRule(), {"a"}) == {"b": 0.2}
    with pytest.raises(UserError, match="no case"):
        select_cases(score_cases(request, SelectionRule(), {"a", "b"}), SelectionRule())


def test_records_of_earlier_versions_stay_the_same():
    assert SelectionRule(0.5).record() == {"keep": 0.5, "most": None, "score": "entropy"}


def test_ignored_voxels_are_not_compared(pool, tmp_path):
    folders = [tmp_path / "before", tmp_path / "now"]
    (image,) = sorted(pool.images.iterdir())[:1]
    case = image.name.removesuffix("_0000.nii.gz")
    labels = np.zeros(sitk.ReadImage(str(image)).GetSize()[::-1], np.uint8)
    labels[:4] = 1
    for ignored, folder in zip((4, 0), folders, strict=True):  # half of it: 4 is ignored
        with_ignored = labels.copy()
        with_ignored[:2] = ignored or 1
        (folder / "labels").mkdir(parents=True)
        written = sitk.GetImageFromArray(with_ignored)
        written.CopyInformation(sitk.ReadImage(str(image)))
        sitk.WriteImage(written, str(folder / "labels" / f"{case}.nii.gz"))
    request = LabellingRequest(pool.images, folders[1], (pool.names[0],))
    assert max(request.trained[0].dataset_json["labels"].values()) == 3
    for score in ("change", "checkpoints"):
        choice = SelectionRule(score=score, before=(str(folders[0]),))
        assert compare_labellings(request, choice, [case]) == {case: 0.0}


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 1.0, 2.0, 7.0, 99.0])
def test_selected_cases_are_at_least_as_certain_as_rejected_ones(keep):
    rng = np.random.default_rng(0)
    scores = {f"case{n}": float(rng.integers(5)) / 5 for n in range(20)}  # many are equal
    selected = select_cases(scores, SelectionRule(keep=keep))
    assert len(selected) == min(20, max(1, round(20 * keep) if keep <= 1 else int(keep)))
    assert selected == {case: scores[case] for case in selected}
    rejected = [scores[case] for case in scores.keys() - selected]
    assert not rejected or max(selected.values()) <= min(rejected)
    shuffled = dict(sorted(scores.items(), key=lambda pair: -pair[1]))
    assert select_cases(shuffled, SelectionRule(keep=keep)) == selected  # whatever their order


def test_scores_that_compare_need_earlier_labels(tmp_path):
    (tmp_path / "there" / "labels").mkdir(parents=True)
    existing, gone = str(tmp_path / "there"), str(tmp_path / "gone")

    def fixes(score: str, *earlier: str) -> list[str]:
        return [problem.fix for problem in find_score_problems(score, earlier, 2)]

    assert fixes("entropy") == fixes("disagreement") == fixes("change", existing) == []
    assert "--before FOLDER" in fixes("change")[0] and "--before FOLDER" in fixes("checkpoints")[0]
    assert len(fixes("entropy", existing)) == 1
    assert len(fixes("entropy", existing, gone)) == 2
    (problem,) = find_score_problems("checkpoints", [existing, gone], 2)
    assert problem.where == f"--before {gone}" and "labels" in problem.what


def test_earlier_folders_are_recorded_with_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choice = SelectionRule(
        score="change", before=("first", str(tmp_path / "second"))
    ).with_absolute_paths()
    assert choice.before == (str(tmp_path / "first"), str(tmp_path / "second"))
    assert choice.with_absolute_paths() == choice
    record = json.loads(json.dumps(choice.record()))
    assert record["before"] == list(choice.before) and SelectionRule(**record).record() == record


def test_completely_ignored_images_are_not_scored(tmp_path):
    request = make_scored_pool(tmp_path, {"a": {"entropy": 0.1}, "b": {"entropy": 0.2}})
    shard_list = tmp_path / "parts" / "part_0.jsonl"
    first, second = shard_list.read_text().splitlines()
    shard_list.write_text(
        "\n".join([first, second.replace('"ignored": 0.0', '"ignored": 1.0')]) + "\n"
    )
    assert score_cases(request, SelectionRule()) == {"a": 0.1}


def test_earlier_labels_of_another_shape_or_of_other_images_are_refused(pool, tmp_path):
    request = LabellingRequest(pool.images, tmp_path / "now", (pool.names[0],))
    case, *_ = request.cases
    for name, shape in (("now", (4, 8, 8)), ("before", (4, 8, 9)), ("empty", ())):
        (tmp_path / name / "labels").mkdir(parents=True)
        if shape:
            written = sitk.GetImageFromArray(np.ones(shape, np.uint8))
            sitk.WriteImage(written, str(tmp_path / name / "labels" / f"{case}.nii.gz"))
    for name, keyword in (("before", "shapes"), ("empty", f"no labels of {case}")):
        choice = SelectionRule(score="change", before=(str(tmp_path / name),))
        with pytest.raises(UserError, match=keyword) as error:
            compare_labellings(request, choice, [case])
        assert error.value.fix and "same images" in error.value.fix
    whole = (tmp_path / "now/labels" / f"{case}.nii.gz").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not an image"):
        (tmp_path / "before/labels" / f"{case}.nii.gz").write_bytes(content)
        choice = SelectionRule(score="change", before=(str(tmp_path / "before"),))
        with pytest.raises(UserError, match=f"before.*{case}"):
            compare_labellings(request, choice, [case])
