"""A disk that gets full at every kind of write: the message, the old files, and continuing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.training.filtering import write_filter_table
from semi_nnunet.training.history import History
from semi_nnunet.training.run_log import write_history_picture
from semi_nnunet.util.files import read_json, write_json
from tests.datasets.converting import write_picture
from tests.end_to_end.bench import Bench, check_files, saved, train
from tests.end_to_end.small_disk import Disk, Work, torn
from tests.report.results_tree import BASE, OURS, Tree

# ---- the kinds of write: each prepares the bench and returns the command ----


def split(bench: Bench) -> Work:
    bench.copy("raw")
    return "split", "-d", "911", "--new-id", "912", "--labelled", "2"


def plan(bench: Bench) -> Work:
    bench.copy("raw", "preprocessed")
    return "plan", "-d", "911", "--set", "epochs=7"


def preprocess(bench: Bench) -> Work:
    bench.copy("raw")
    return "preprocess", "-d", "911", "-c", "2d", "-np", "1"


def plan_anew(bench: Bench) -> Work:
    """Remove a labelled case, which changes the fingerprint, the plans and dataset.json."""
    raw = bench.copy("preprocessed", "raw")
    write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), "numTraining": 4})
    for name in ("imagesTr/phantom_0000_0000.nii.gz", "labelsTr/phantom_0000.nii.gz"):
        (raw / name).unlink()
    return "preprocess", "-d", "911", "-c", "2d", "-np", "1"


def domain_check(bench: Bench) -> Work:
    """Add an unlabelled image with huge voxels."""
    path = sorted((bench.copy("preprocessed", "raw") / "imagesUn").iterdir())[0]
    image = sitk.ReadImage(str(path))
    image.SetSpacing((20, 20, 20))
    sitk.WriteImage(image, str(path))
    return "preprocess", "-d", "911", "-c", "2d", "-np", "1"


def pseudo_label(bench: Bench, out: str = "labelled") -> tuple[str, ...]:
    """Run the process of a shard."""
    model = bench.model("preprocessed", "raw")
    where = ("-i", str(bench.place("raw") / "imagesUn"), "-o", str(bench.disk.folder / out))
    shard = ("--shards", "1", "--only", "0", "--worker", "--device", "cpu")
    return ("pseudo-label", *where, "-m", model, *shard)


def distil(bench: Bench) -> Work:
    """Label the pool first."""
    words = pseudo_label(
        bench, f"raw/pseudo_labels_{bench.dataset.name}Again".replace("911", "913")
    )
    code, said = bench.disk.run(words)
    assert code == 0, said
    model = words[words.index("-m") + 1]
    how = ("--new-name", f"{bench.dataset.name[11:]}Again", "--device", "cpu", "-np", "1")
    return ("pseudo-dataset", "-d", "911", "--new-id", "913", "-m", model, *how)


def export(bench: Bench) -> Work:
    bench.model("raw")
    which = ("-d", "911", "-c", "2d", "-tr", "SemiBaselineTrainer")
    return ("export", *which, "-o", str(bench.disk.folder / "exported"))


def evaluate(bench: Bench) -> Work:
    labels = bench.copy("raw") / "labelsTr"
    predicted = shutil.copytree(labels, bench.disk.folder / "predicted")
    return "evaluate", "-i", str(predicted), "-r", str(labels), "-np", "1"


def report(bench: Bench) -> Work:
    tree = Tree(bench.elsewhere / "tree", cases=3)
    for trainer in (BASE, OURS):
        tree.train(trainer)
    tree.set_paths(bench.monkeypatch)
    return "report", "-d", "7", "-o", str(bench.disk.folder / "report.html")


def convert(bench: Bench) -> Work:
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((44, 44, 3), np.uint8)
        mask[10:30, 10 : 20 + number] = 255
        image = rng.integers(0, 255, mask.shape, np.uint8)
        write_picture(bench.elsewhere / f"images/cju{number}.jpg", image)
        write_picture(bench.elsewhere / f"masks/cju{number}.jpg", mask)
    bench.copy("raw")
    return "convert", "kvasir", str(bench.elsewhere), "--new-id", "700", "-np", "1", "--incomplete"


def history(bench: Bench) -> Work:
    rows = [{"epoch": epoch, "loss/supervised": 1 / (1 + epoch)} for epoch in range(300)]
    return partial(write_history, History(rows), bench.disk.folder)


def write_history(curves: History, folder: Path) -> None:
    curves.write_csv(folder / "semi_history.csv")
    write_history_picture(curves, folder / "semi_history.png")


def filter_scores(bench: Bench) -> Work:
    scores = {f"case_{number}": number / 2000 for number in range(2000)}
    return partial(
        write_filter_table, bench.disk.folder / "filter_epoch_5.csv", scores, list(scores)
    )


# Bytes that are left on the disk: too few, and enough to begin with.
ROOMS: dict[Callable[[Bench], Work], tuple[int, ...]] = {
    split: (0, 131072),
    plan: (0, 16384),
    preprocess: (0, 32768, 131072),
    plan_anew: (0, 16384),
    domain_check: (0, 16384),
    pseudo_label: (0, 8192),
    distil: (0, 131072),
    export: (0, 32768, 131072),
    evaluate: (0, 16384),
    report: (0, 65536),
    convert: (0, 8192),
    history: (0, 4096, 16384),
    filter_scores: (0, 8192),
}
# And the bytes that a file may have: there is space, but what the system says is another thing.
LIMITS: dict[Callable[[Bench], Work], tuple[int, ...]] = {
    split: (8192,),
    plan: (8192,),
    preprocess: (2048, 16384),
    plan_anew: (8192,),
    domain_check: (8192,),
    pseudo_label: (1024,),
    distil: (8192,),
    export: (65536,),
    evaluate: (8192,),
    report: (65536,),
    convert: (1024,),
    history: (1024, 16384),
    filter_scores: (1024,),
}


def check_message(disk: Disk, said: str) -> None:
    """Assert that one line names the output and the fix."""
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert "Traceback" not in said
    assert ": error: could not write " in line and str(disk.folder) in line, line
    assert "Fix: free some space or make the folder writable, then run the same command" in line


@pytest.mark.parametrize("is_small", [True, False], ids=["full", "limit"])
@pytest.mark.parametrize("kind", ROOMS, ids=lambda kind: kind.__name__)
def test_a_full_disk_is_reported_and_only_costs_time(
    kind: Callable[[Bench], Work], is_small: bool, make_bench: Callable[[bool], Bench]
) -> None:
    bench = make_bench(is_small)
    disk, work = bench.disk, kind(bench)
    before = disk.files()
    for room in ROOMS[kind] if is_small else LIMITS[kind]:
        code, said = disk.run(work, room)
        assert code == (2 if isinstance(work, tuple) else 1), said
        check_message(disk, said)
        check_files(disk, before)
    code, said = disk.run(work)
    assert code == 0, said
    assert torn(disk.folder, disk.files()) == {} and not disk.left_aside()
    assert disk.files().keys() != before.keys() or kind in (plan, plan_anew)


@pytest.mark.slow
@pytest.mark.parametrize("is_small", [True, False], ids=["full", "limit"])
def test_a_training_ends_at_a_checkpoint_it_cannot_write_and_continues_from_the_last(
    is_small: bool, make_bench: Callable[[bool], Bench]
) -> None:
    bench = make_bench(is_small)
    disk, work = bench.disk, train(bench)
    before = disk.files()
    if is_small:  # while it trains
        code, said = disk.run(work, at={"Epoch 1": lambda: (saved(disk), disk.fill(32768))})
    else:
        code, said = disk.run(work, 65536)
    assert code == 1, said
    check_message(disk, said)
    assert "checkpoint_" in said.splitlines()[-1] and "it takes about " in said
    check_files(disk, before)
    code, said = disk.run(work)
    assert code == 0, said
    assert ("Loaded " in said) == is_small
    assert torn(disk.folder, disk.files()) == {} and not disk.left_aside()
    assert list(disk.folder.glob("results/*/*/fold_0/checkpoint_final.pth"))


def test_a_training_does_not_start_on_a_full_disk(make_bench: Callable[[bool], Bench]) -> None:
    bench = make_bench(True)
    work = train(bench)
    before = bench.disk.files()
    code, said = bench.disk.run(work, 65536)
    assert code == 1 and "Traceback" not in said
    assert "error: the disk of " in said and "is full: 0 MiB are free. Fix: free some space" in said
    check_files(bench.disk, before)


def test_pictures_that_cannot_be_written_do_not_stop_a_training(
    make_bench: Callable[[bool], Bench],
) -> None:
    bench = make_bench(False)
    work = train(bench)
    before = bench.disk.files()
    code, said = bench.disk.run(work, 200_000)
    assert code == 0, said
    assert "WARNING: could not write " in said and "progress.png" in said
    check_files(bench.disk, before)
