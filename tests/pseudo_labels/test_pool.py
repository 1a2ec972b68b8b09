"""Cases of a pool are labelled once and completely, whatever is killed or broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch

from semi_nnunet.cli.main import main
from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.pseudo_labels.pool import (
    LabellingRequest,
    choose_ignore_label,
    format_records,
    ignore_unsure_voxels,
    read_uncertainties,
    skip_case,
    write_uncertainty_table,
)
from semi_nnunet.pseudo_labels.predictor import Labeller, Prediction
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import parse_csv, read_csv, read_json, sha256_of_file, write_json
from semi_nnunet.util.shards import Shard, find_unfinished_shards, shard_of
from tests.forking import forked
from tests.pseudo_labels.killing import WRITES, killed_worker, list_finished_cases, worker
from tests.pseudo_labels.labelling import label, read
from tests.runs.parsing import parse_command

KILLS = 10


def test_views_change_the_labels_and_unsure_voxels_are_ignored(pool, tmp_path):
    plain_request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    label(plain_request)
    seen = replace(plain_request, out=tmp_path / "seen", views=("rot90", "gamma", "blur", "noise"))
    label(seen)
    sure = replace(plain_request, out=tmp_path / "sure", confidence=0.6)
    label(sure)
    different = ignored = 0
    for path in plain_request.labels.iterdir():
        plain, careful = read(path), read(sure.labels / path.name)
        different += (plain != read(seen.labels / path.name)).sum()
        assert np.array_equal(plain[careful != 4], careful[careful != 4])
        ignored += (careful == 4).sum()  # the phantom's labels are 0 to 3
    assert different and ignored


def test_cases_of_killed_processes_are_labelled_once_and_completely(pool, tmp_path):
    for number in range(5 * KILLS):  # more than the runs below do before they are killed
        source = next(pool.images.iterdir())
        shutil.copy(source, pool.images / f"more{number}_0000.nii.gz")
    clean = LabellingRequest(pool.images, tmp_path / "clean", (pool.names[0],))
    started = time.monotonic()
    label(clean)
    a_case = (time.monotonic() - started) / len(clean.cases)
    request, chance = replace(clean, out=pool.out), random.Random(0)
    request.begin()
    shard = Shard(request, 0, 1)
    for number in range(KILLS):
        process = forked(worker, shard, tmp_path / f"log{number}")
        awaited = len(list_finished_cases(shard)) + chance.choice([1, 2])
        while process.is_alive() and len(list_finished_cases(shard)) < awaited:
            time.sleep(a_case / 20)
        killed_at = time.monotonic() + chance.uniform(0, a_case)
        while time.monotonic() < killed_at and len(list_finished_cases(shard)) <= awaited:
            time.sleep(a_case / 20)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (tmp_path / f"log{number}").read_text()
    assert request.done() and request.find_unfinished()
    finish_and_compare(shard, clean, tmp_path / "log")


def test_a_kill_at_any_step_of_writing_costs_only_that_case(pool, tmp_path):
    """Kill before and in the middle of every write."""
    clean = LabellingRequest(pool.images, tmp_path / "clean", (pool.names[0],), npz=True)
    label(clean)
    request = replace(clean, out=pool.out)
    request.begin()
    shard, steps = Shard(request, 0, 1), []
    for torn in (False, True):
        for number in range(1, len(WRITES) + 1):
            process = forked(killed_worker, shard, tmp_path / "log", number, torn)
            process.join()
            assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
            steps.append((tmp_path / "log").read_text().splitlines()[-1])
    assert steps == [f"killed at {name}" for name in 2 * WRITES]
    assert len(list_finished_cases(shard)) == 1  # killed after its line was complete
    finish_and_compare(shard, clean, tmp_path / "log")


def finish_and_compare(shard: Shard[LabellingRequest], clean: LabellingRequest, log: Path) -> None:
    """Label the missing cases; check that each was labelled once and equals that of a clean run."""
    process = forked(worker, shard, log)
    process.join()
    assert process.exitcode == 0, log.read_text(encoding="utf-8")
    written, expected = (
        {path.name: sha256_of_file(path) for path in labelled.labels.iterdir()}
        for labelled in (shard.work, clean)
    )
    assert written == expected
    assert sorted(list_finished_cases(shard)) == sorted(clean.cases)
    assert not [path for path in shard.folder.rglob("*") if path.name.startswith(".writing_")]


def test_a_case_belongs_to_one_shard(pool):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    for count in (1, 3, 7):
        cases = [case for number in range(count) for case in Shard(request, number, count).cases()]
        assert sorted(cases) == sorted(request.cases)
    assert {shard_of(f"case{i}", 8) for i in range(200)} == set(range(8))


def test_an_empty_pool_is_refused(pool, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ["pseudo-label", "-i", str(tmp_path / "empty"), "-o", str(pool.out)]
    assert main([*words, "-m", pool.names[0], "--device", "cpu"]) == 2
    assert "no image CASE_0000.nii.gz" in capsys.readouterr().err


def test_a_full_disk_is_not_blamed_on_the_image(pool, monkeypatch):
    def full(source, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semi_nnunet.pseudo_labels.pool.put_in_place", full)
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    with pytest.raises(UserError, match="No space left"):
        label(request)
    assert not request.bad() and not request.done()


def test_channels_that_do_not_fit_the_model_are_skipped(pool):
    bad, *good = sorted(pool.images.iterdir())
    shutil.copy(bad, bad.with_name(bad.name.replace("_0000", "_0001")))  # the model knows one
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    label(request)
    assert not request.find_unfinished() and len(request.done()) == len(good)
    (problem,) = request.bad().values()
    assert "channel" in str(problem)


def test_an_image_that_the_network_rejects_is_skipped_and_the_others_are_labelled(
    pool, monkeypatch
):
    predict = Labeller.__call__

    def fails_once(self, images):
        if images[0] == str(first):
            raise RuntimeError("Given groups=1, weight of size [4, 1, 3, 3], expected 1 channels")
        return predict(self, images)

    first = sorted(pool.images.iterdir())[0]
    monkeypatch.setattr(Labeller, "__call__", fails_once)
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    label(request)
    assert not request.find_unfinished() and len(request.done()) == 3 and len(request.bad()) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        MemoryError(),
    ],
)
def test_an_image_too_large_for_the_memory_is_tried_again_after_all_others(
    pool, monkeypatch, error
):
    first = sorted(pool.images.iterdir())[0]
    predict = Labeller.__call__

    def fails(self, images):
        if images[0] == str(first):
            raise error
        return predict(self, images)

    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    with monkeypatch.context() as patch, pytest.raises(UserError, match="memory"):
        patch.setattr(Labeller, "__call__", fails)
        label(request)
    assert len(request.done()) == 3 and not request.bad()
    assert request.find_unfinished() == [first.name.removesuffix("_0000.nii.gz")]
    label(request)
    assert not request.find_unfinished()


def test_a_failing_device_is_not_blamed_on_the_image(pool, monkeypatch):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))

    def fails(self, images):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="illegal"):
        patch.setattr(Labeller, "__call__", fails)
        label(request)
    assert len(request.find_unfinished()) == 4
    label(request)
    assert not request.find_unfinished()


def test_changed_or_removed_images_are_not_done(pool):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    label(request)
    changed, gone, *_ = sorted(pool.images.iterdir())
    shutil.copy(gone, changed)
    gone.unlink()
    again = replace(request)
    assert again.find_unfinished() == [changed.name.removesuffix("_0000.nii.gz")]
    assert gone.name.removesuffix("_0000.nii.gz") not in again.done()


def test_a_corrected_label_is_never_replaced_and_a_damaged_one_is_made_again(pool, capsys):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    label(request)
    first, second, *_ = sorted(request.labels.iterdir())
    written = {path: path.read_bytes() for path in (first, second)}
    words = ["pseudo-label", "-i", pool.images, "-o", pool.out, "-m", *request.models]
    words = [*map(str, words), "--device", "cpu", "--jobs", "1"]

    shutil.copy(second, first)  # complete, but of another content
    assert main(words) == 2 and first.name in capsys.readouterr().err
    assert first.read_bytes() == written[second]
    first.write_bytes(written[first])  # the same content at another time is no edit
    damaged = bytearray(written[second])
    damaged[len(damaged) // 2] ^= 4
    second.write_bytes(damaged)
    assert main(words) == 0
    assert all(path.read_bytes() == content for path, content in written.items())


def test_a_model_of_the_same_name_in_another_data_set_is_another_model(pool, tmp_path):
    other = tmp_path / "Dataset999_Other" / pool.models[0].folder.name
    shutil.copytree(pool.models[0].folder, other)
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    for models in ((str(other),), (pool.names[0], str(other)), (pool.names[0],) * 2):
        assert replace(request, models=models).record() != request.record()


def test_the_spacing_of_a_tif_comes_with_its_label(pool, tmp_path):
    folder = tmp_path / "tif"
    folder.mkdir()
    for path in pool.images.iterdir():
        case, image = path.name.removesuffix("_0000.nii.gz"), sitk.ReadImage(str(path))
        tifffile.imwrite(folder / f"{case}_0000.tif", sitk.GetArrayFromImage(image))
        spacing = {"spacing": list(image.GetSpacing())[::-1]}
        write_json(folder / f"{case}.json", spacing)
    description = pool.models[0].folder / "dataset.json"
    write_json(description, {**read_json(description), "file_ending": ".tif"})
    plans = pool.models[0].folder / "plans.json"
    write_json(plans, {**read_json(plans), "image_reader_writer": "Tiff3DIO"})
    request = LabellingRequest(folder, pool.out, (pool.names[0],))
    label(request)
    assert len(request.done()) == 4 and not request.bad()
    for case in request.cases:
        written = read_json(request.labels / f"{case}.json")["spacing"]
        assert written == pytest.approx(read_json(folder / f"{case}.json")["spacing"])


def manager(**more: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{"has_regions": False, "ignore_label": None, "all_labels": [0, 1, 2], **more}
    )


def test_voxels_with_uncertain_labels_are_ignored():
    probabilities = np.array([[0.4, 0.1, 0.05], [0.35, 0.85, 0.05], [0.25, 0.05, 0.9]])
    prediction = Prediction(probabilities, probabilities.argmax(0), [], {})
    assert ignore_unsure_voxels(prediction, manager(), 0.0) is prediction.labels
    for confidence, labels in ((0.3, [0, 1, 2]), (0.5, [3, 1, 2]), (0.88, [3, 3, 2])):
        assert ignore_unsure_voxels(prediction, manager(), confidence).tolist() == labels
    assert ignore_unsure_voxels(prediction, manager(ignore_label=9), 0.5).tolist() == [9, 1, 2]
    of_regions = manager(has_regions=True)  # the least sure region counts: 0.6, 0.85, 0.9
    for confidence, labels in ((0.5, [0, 1, 2]), (0.8, [3, 1, 2]), (0.88, [3, 3, 2])):
        assert ignore_unsure_voxels(prediction, of_regions, confidence).tolist() == labels
    assert choose_ignore_label(manager()) == 3 and choose_ignore_label(manager(ignore_label=7)) == 7


def test_the_command_of_a_shard_makes_the_same_request(pool):
    request = LabellingRequest(
        pool.images, pool.out, tuple(pool.names), ("rot90", "blur"), confidence=0.75, npz=True
    )
    shard = Shard(request, 1, 3)
    (command,) = shard.commands("cpu", 2)
    parsed = parse_command(command)
    assert (parsed.launcher.only, parsed.shards, parsed.worker) == (1, 3, True)
    parsed_request = LabellingRequest(
        Path(parsed.images), Path(parsed.out), tuple(parsed.models), tuple(parsed.views),
        parsed.confidence, parsed.npz,
    )  # fmt: skip
    assert parsed_request == request and parsed_request.record() == request.record()


def test_a_folder_belongs_to_one_request_whatever_the_order_of_its_views(pool):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],), ("blur", "rot90"))
    request.begin()
    replace(request, views=("rot90", "blur")).begin()
    for other in ({"views": ("blur",)}, {"confidence": 0.5}, {"npz": True}, {"models": pool.names}):
        with pytest.raises(UserError, match=f"begun with other (--)?{next(iter(other))} \\("):
            replace(request, **other).begin()
    assert read_json(pool.out / "request.json") == request.record()
    moved = pool.images.rename(pool.images.with_name("moved"))
    replace(request, images=moved).begin()
    assert read_json(pool.out / "request.json")["images"] == str(moved)


def finish(request: LabellingRequest, *cases: str) -> None:
    """Record cases with complete files as done."""
    request.begin()
    for case in cases:
        path = request.labels / f"{case}.nii.gz"
        path.write_text(case)
        facts = {"uncertainty": {"entropy": 0.5}, "ignored": 0.0}
        entry = ManifestEntry.of(case, format_records(request.files(case)), [path], facts)
        Manifest(request.labels, Shard(request, 0, 1).finished).add(entry)


def test_a_label_made_again_by_another_shard_is_not_edited(pool):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    (case, *_) = request.cases
    finish(request, case)
    path = request.labels / f"{case}.nii.gz"
    path.write_text("the label of another device")
    entry = ManifestEntry.of(case, format_records(request.files(case)), [path], {})
    Manifest(request.labels, Shard(request, 0, 2).finished).add(entry)
    request.require_no_edited_label()
    shutil.copy(request.cases[case][0], path)  # a correction
    with pytest.raises(UserError, match=case):
        request.require_no_edited_label()


def test_cases_are_done_skipped_or_left(pool):
    request = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    first, second, third, fourth = request.cases
    finish(request, first, second)
    skip_case(Shard(request, 0, 1), third, "cannot be\n read")
    assert set(request.done()) == {first, second} and request.bad() == {third: "cannot be read"}
    assert request.find_unfinished() == [fourth] and request.find_unfinished([first, third]) == []
    skip_case(Shard(request, 0, 1), second, "an older one")
    assert second not in request.bad()  # it was labelled since
    (request.labels / f"{first}.nii.gz").unlink()
    with (request.shards / "part_0.bad").open("a") as file:
        file.write(f'{{"case": []}}\n[1]\n{"[" * 100_000}\n{{"case": "torn')
    assert request.find_unfinished() == [first, fourth]
    assert find_unfinished_shards(request, 4) == sorted(
        {shard_of(case, 4) for case in (first, fourth)}
    )


def test_images_that_exchange_their_names_are_labelled_again(pool, tmp_path):
    images = shutil.copytree(pool.images, tmp_path / "copied")
    request = LabellingRequest(images, tmp_path / "out", (pool.names[0],))
    first, second, *others = request.cases
    for case, content in ((first, b"one"), (second, b"two")):  # of equal size and time
        Path(request.cases[case][0]).write_bytes(content)
        os.utime(request.cases[case][0], (1e9, 1e9))
    finish(request, first, second, *others)
    assert request.find_unfinished() == []
    one, two = Path(request.cases[first][0]), Path(request.cases[second][0])
    one.rename(images / "aside"), two.rename(one), (images / "aside").rename(two)
    assert request.find_unfinished() == [first, second]


def test_labels_of_the_earlier_version_are_kept(pool, tmp_path):
    request = LabellingRequest(pool.images, tmp_path / "out", (pool.names[0],))
    first, second, *_ = request.cases
    finish(request, first)
    (line,) = Shard(request, 0, 1).finished.read_text().splitlines()
    (stat,) = (Path(file).stat() for file in request.cases[first])
    entry = {**json.loads(line), "source": f"{stat.st_size}:{stat.st_mtime_ns}"}
    Shard(request, 0, 1).finished.write_text(json.dumps(entry) + "\n")
    assert set(request.done()) == {first} and second in request.find_unfinished()


def test_the_most_certain_come_first_in_the_table(tmp_path):
    def entry(entropy: float, disagreement: float, ignored: float = 0.0) -> SimpleNamespace:
        scores = {"entropy": entropy, "disagreement": disagreement}
        return SimpleNamespace(facts={"uncertainty": scores, "ignored": ignored})

    entries = {
        "b": entry(0.2, 0.1), "a": entry(0.2, 0.1), "c": entry(0.1, 0.3), "d": entry(0.1, 0.1),
        "ignored": entry(0.0, 0.0, ignored=1.0),
    }  # fmt: skip
    assert set(read_uncertainties(entries)) == {"a", "b", "c", "d"}
    path = write_uncertainty_table(LabellingRequest(tmp_path, tmp_path, ()), entries)
    rows = [row for _, row in parse_csv(path.read_text())]
    assert rows[0] == ["case", "entropy", "disagreement"]
    assert [row[0] for row in rows[1:]] == ["d", "a", "b", "c"]  # by disagreement, then entropy
    assert rows[1][1:] == ["0.100000", "0.100000"]
    empty = write_uncertainty_table(LabellingRequest(tmp_path, tmp_path, ()), {})
    assert read_csv(empty) == (["case"], [])
