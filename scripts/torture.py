"""Inject the faults of the reliability page, and print what was injected, survived and lost.

Started by torture.sh, which documents the options. A row is a file of tests or a command that is
killed at random moments. Tests that inject several faults at once record their numbers as the
properties "injected" and "lost"; any other test is one fault. The output of lost faults comes
before the table.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FAULTS = {  # file or folder of tests -> its faults
    "end_to_end/test_bad_inputs.py": "bad images and descriptions",
    "end_to_end/test_every_file.py": "damaged files of every kind; other places and times",
    "end_to_end/test_full_disk.py": "full disks",
    "end_to_end/test_lost_results.py": "lost folders of results",
    "end_to_end/test_kill_and_continue.py": "killed trainings",
    "end_to_end/test_launches.py": "killed processes of several, double launches",
    "end_to_end/test_ddp.py": "several processes",
    "end_to_end/test_surroundings.py": "unusual environments",
    "annotation/test_accept.py": "kills while labels are accepted",
    "cli/test_main.py": "mistakes, interrupts, closed disks and outputs",
    "data/test_changed_files.py": "edited and copied data",
    "data/test_domain_check.py": "images of another world",
    "data/test_image_files.py": "broken files of every format",
    "data/test_preprocessing.py": "killed workers",
    "data/test_unlabelled_shards.py": "killed shards",
    "deploy/test_descriptions.py": "plans that name programs",
    "deploy/test_hostile_models.py": "hostile models through every verb",
    "deploy/test_install.py": "hostile zips",
    "deploy/test_trained.py": "hostile checkpoints",
    "evaluation/test_values.py": "cut tables",
    "inference/test_predict.py": "predictions of two models, images that change",
    "pseudo_labels/test_label.py": "lost nodes of a cluster",
    "pseudo_labels/test_pool.py": "kills while a pool is labelled",
    "runs/test_crossval.py": "interrupted cross-validation",
    "runs/test_inputs.py": "measures of other images and labels",
    "runs/test_job.py": "empty files that count as done",
    "runs/test_matched.py": "trainings on other labels",
    "runs/test_hostile_recipes.py": "hostile recipes and tables",
    "runs/test_process_group.py": "a process of two machines",
    "runs/test_real_slurm.py": "requeued jobs of SLURM",
    "runs/test_tether.py": "children of a killed parent",
    "end_to_end/test_edits_between_commands.py": "random edits between random commands",
    "training/test_changed_data.py": "data that change under a training",
    "training/test_checkpoints.py": "damaged and hostile checkpoints",
    "training/test_companions.py": "checkpoints without a teacher",
    "training/test_interruptions.py": "full memory, killed loaders, a machine that is taken away",
    "training/test_one_launch.py": "two launches of one fold",
    "training/test_step.py": "losses and gradients that are not finite",
    "util/test_files.py": "full disks under a writer",
}
ROOT = Path(__file__).parents[1]
SCENARIO = re.compile(r"^(?P<name>[\w-]+): (?P<kills>\d+) kills, \d+ runs ended, (?P<outcome>.*)")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    injected: int
    lost: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", metavar="WORD")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    os.environ |= {
        "SEMI_NNUNET_TORTURE": str(args.rounds),
        "SEMI_NNUNET_TORTURE_SEED": str(args.seed),
        "HYPOTHESIS_PROFILE": "torture",
    }
    if absent := [name for name in FAULTS if not (ROOT / "tests" / name).exists()]:
        sys.exit(f"no such file of tests: {', '.join(absent)}")
    rows = list(run_tests(select(FAULTS, args.only)))
    if args.kills and (not args.only or "kills" in args.only):
        rows += run_kills(args.kills, args.seed)
    print_table(rows)
    print(f"seed {args.seed}")
    sys.exit(1 if not rows or any(row.lost for row in rows) else 0)


def select(names: Iterable[str], words: list[str] | None) -> list[str]:
    """Return the files whose path or faults have one of the words."""
    return [
        name
        for name in names
        if not words or any(word in f"{name} {FAULTS[name]}" for word in words)
    ]


def run_tests(names: list[str]) -> Iterator[Row]:
    """Run the files of tests, and yield a row for each."""
    if not names:
        return
    paths = [f"tests/{name}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "results.xml"
        options = ["-q", "-n", "auto", "-p", "no:cacheprovider", f"--junitxml={record}"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *paths], check=False, cwd=ROOT)
        if not record.is_file():
            yield Row("the tests did not run", 0, 1)
            return
        cases = list(ElementTree.parse(record).iter("testcase"))  # noqa: S314 - we wrote it
    for name in names:
        module = f"tests.{name.removesuffix('.py').replace('/', '.')}"
        own = [case for case in cases if case.get("classname", "").startswith(module)]
        counts = [count_faults(case) for case in own if case.find("skipped") is None]
        injected, lost = (sum(count[part] for count in counts) for part in (0, 1))
        skipped = len(own) - len(counts)
        note = f" ({skipped} skipped: not possible on this machine)" if skipped else ""
        yield Row(FAULTS[name] + note, injected, lost)


def count_faults(case: ElementTree.Element) -> tuple[int, int]:
    """Return how many faults a test injected, and how many of them were lost."""
    values = {item.get("name"): int(item.get("value", "0")) for item in case.iter("property")}
    failed = case.find("failure") is not None or case.find("error") is not None
    injected = max(1, values.get("injected", 1))
    return injected, max(1, values.get("lost", 1)) if failed else 0


def run_kills(kills: int, seed: int) -> Iterator[Row]:
    """Kill commands at random moments, and yield a row for each command."""
    words = ["scripts/kill_lottery.py", "--kills", str(kills), "--seed", str(seed)]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    injected, lost = 0, 0
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if match := SCENARIO.match(line):
            losses = 0 if match["outcome"] == "nothing lost" else match["outcome"].count("; ") + 1
            yield Row(f"kills of {match['name']}", int(match["kills"]), losses)
            injected, lost = injected + int(match["kills"]), lost + losses
    if process.wait() and not lost:
        yield Row("the kills ended early", kills - injected, max(1, kills - injected))


def print_table(rows: list[Row]) -> None:
    """Print injected, survived and lost faults of each row, and their sums."""
    rows = [*rows, Row("all", sum(r.injected for r in rows), sum(r.lost for r in rows))]
    width = max(len(row.name) for row in rows)
    print(f"\n{'':<{width}}  injected  survived  lost")
    for row in rows:
        survived = max(0, row.injected - row.lost)
        print(f"{row.name:<{width}}  {row.injected:8}  {survived:8}  {row.lost:4}")


if __name__ == "__main__":
    main()
