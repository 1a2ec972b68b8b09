"""Measure how the stages of a workflow scale with the number of unlabelled images.

    python scripts/many_cases.py [--cases N ...] [--preprocessed N]

Makes a synthetic data set with N unlabelled images (hard links of a few tiny ones) in a temporary
folder, and measures each stage in its own process: checking and planning (semi_nnunet preprocess up
to the first unlabelled case), preprocessing all cases, a second call when all cases are done,
semi_nnunet status, a training of one step with its start, the selection of the least uncertain
images, and a report. Prints seconds, CPU seconds (the others are waiting, or other programs), the
peak memory of a process in MiB, and the ratio to the previous N.

Preprocessing a case takes tens of milliseconds, so above --preprocessed images the files of the
first ones are linked and recorded instead, and the stage is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.discovery.register import TRAINERS_FOLDER
from semi_nnunet.preprocessing.manifest import ManifestEntry, get_manifest_file
from semi_nnunet.preprocessing.shards import UnlabelledPreprocessing

NUMBER, NAME, PLANS, LINKS, ORIGINALS = 905, "Dataset905_Many", "nnUNetPlans_many", 30_000, 8
TRAINER = "SemiMeanTeacherTrainer"
SETTINGS = ("epochs=1", "steps_per_epoch=1", "validation_steps_per_epoch=1")
OURS = [sys.executable, "-m", "semi_nnunet"]
LABELLED = """
import sys
from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_labelled
prepare_labelled(sys.argv[1], PrepareOptions(["2d"], processes=2))
"""
ORIGINAL = """
import json, sys
from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_labelled
from semi_nnunet.preprocessing.cases import preprocess_cases
ready = prepare_labelled(sys.argv[1], PrepareOptions(["2d"], processes=2))
pool = ready.pools()[0]
unlike = {case.content_hash: case for case in ready.unlabelled}
preprocess_cases(list(unlike.values()), pool.spec, pool.folder, 1, "unlabelled")
sources = {case.name: pool.spec.compute_source(case) for case in ready.unlabelled}
json.dump(sources, open(sys.argv[2], "w", encoding="utf-8"))
"""
FILTER = """
import sys
from pathlib import Path
from semi_nnunet.training.filtering import select_least_uncertain, write_filter_table
scores = {f"case_{number:06d}": number * 0.618 % 1 for number in range(int(sys.argv[1]))}
write_filter_table(Path(sys.argv[2]), scores, select_least_uncertain(scores, 0.1))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--preprocessed", type=int, default=10_000, help="most images that are")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    for count in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            for stage, taken, worked, memory in measured(Path(folder), count, args.preprocessed):
                seconds.setdefault(stage, []).append(taken)
                each = f"{taken:7.1f} s {worked:7.1f} s {memory:6.0f} MiB"
                print(f"{count:>7} {stage:24} {each}", flush=True)
    if len(args.cases) > 1:
        print(f"{args.cases[-1]} cases take, of the time of {args.cases[0]}:")
        for stage, taken_each in seconds.items():
            if len(taken_each) == len(args.cases):
                print(f"        {stage:24} {taken_each[-1] / taken_each[0]:7.1f} times")


def measured(folder: Path, count: int, most: int) -> Iterator[tuple[str, float, float, float]]:
    """Yield (stage, seconds, CPU seconds, MiB) for a data set of so many unlabelled images.

    Up to ``most`` of them are preprocessed; more are recorded as if they were.
    """
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ |= {"nnUNet_extTrainer": str(TRAINERS_FOLDER), "nnUNet_compile": "f"}
    os.environ |= {"nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"}
    make_raw(folder / "raw" / NAME, count)
    number, which = str(NUMBER), ["-d", str(NUMBER), "-p", PLANS]
    yield run("check and plan", [sys.executable, "-c", LABELLED, NAME])
    plan = [*OURS, "plan", "-d", number, "-c", "2d", "--new-plans", PLANS, "--set", *SETTINGS]
    run("plan", plan)
    preprocess = [*OURS, "preprocess", "-d", number, "-c", "2d", "-np", "2"]
    if count <= most:
        yield run("preprocess", preprocess)
    else:
        make_preprocessed(folder / "preprocessed" / NAME, count)
    train = ["nnUNetv2_train", NAME, "2d", "all", "-tr", TRAINER, "-p", PLANS, "-device", "cpu"]
    page = str(folder / "report.html")
    for stage, words in {
        "preprocess, all done": preprocess,
        "training of one step": [str(Path(sys.executable).parent / train[0]), *train[1:]],
        "status": [*OURS, "status", *which],
        "filter": [sys.executable, "-c", FILTER, str(count), str(folder / "filter.csv")],
    }.items():
        yield run(stage, words)
    cross = [*OURS, "crossval", *which, "-c", "2d", "-f", "all", "-tr", TRAINER, "--device", "cpu"]
    run("predict and evaluate", cross)
    yield run("report", [*OURS, "report", *which, "-o", page])


def make_raw(raw: Path, count: int) -> None:
    """Make a data set with so many unlabelled images."""
    write_phantom_dataset(raw, labelled=4, unlabelled=ORIGINALS, test=2, shape=(1, 32, 32))
    folder = raw / "imagesUn"
    originals = sorted(folder.iterdir())
    for number in range(ORIGINALS, count):
        ending = originals[0].name.split("_0000", 1)[1]
        slot = number % ORIGINALS
        if number >= LINKS * ORIGINALS and number % (LINKS * ORIGINALS) < ORIGINALS:
            originals[slot] = Path(shutil.copy(originals[slot], raw / f"copy_{number}{ending}"))
        os.link(originals[slot], folder / f"case_{number:06d}_0000{ending}")


def make_preprocessed(preprocessed: Path, count: int) -> None:
    """Preprocess the originals, and record all others as done."""
    sources_file = preprocessed / "sources.json"
    run("originals", [sys.executable, "-c", ORIGINAL, NAME, str(sources_file)])
    sources = json.loads(sources_file.read_text(encoding="utf-8"))
    pool = UnlabelledPreprocessing(preprocessed, "nnUNetPlans", "2d")
    manifest = get_manifest_file(pool.folder)
    made = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    by_source = {entry["source"]: entry for entry in made}
    there = {entry["case"] for entry in made}
    with open(manifest, "a", encoding="utf-8") as file:
        for case, source in sources.items():
            if case in there:
                continue
            original = by_source[source]
            files = {}
            for name, fact in original["files"].items():
                target = case + name.removeprefix(original["case"])
                files[target] = fact
                try:
                    os.link(pool.folder / name, pool.folder / target)
                except OSError:  # a file has so many links already
                    shutil.copy(pool.folder / name, pool.folder / target)
            entry = ManifestEntry(case, source, files, original["facts"], original["when"])
            file.write(json.dumps(entry.__dict__) + "\n")


def run(stage: str, words: list[str]) -> tuple[str, float, float, float]:
    """Run a command; return its seconds, CPU seconds and its largest process's memory in MiB."""
    started = time.monotonic()
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr); "
        "sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    worked, memory = map(float, done.stderr.split()[-2:])
    return stage, time.monotonic() - started, worked, memory / 1024


if __name__ == "__main__":
    main()
