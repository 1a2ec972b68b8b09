"""Measure what records of inputs cost: comparing unchanged cases, and in a first preprocessing.

    python scripts/provenance_cost.py [--cases 10000] [--images 20]

Works in a temporary folder. Prints the seconds in which the files of unchanged cases, and the lists
of preprocessed cases, are compared; and the share of a first preprocessing in one process that
hashing the raw and the preprocessed files takes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semi_nnunet.datasets.phantom import write_phantom_dataset
from semi_nnunet.preprocessing import manifest, prepare
from semi_nnunet.raw.description import RawCase
from semi_nnunet.raw.readers import Geometry
from semi_nnunet.util.files import sha256_of_file
from semi_nnunet.util.provenance import FileRecord
from semi_nnunet.verify.reports import CaseReport, find_changed_cases, read_reports, write_reports

GEOMETRY = Geometry((16, 64, 64), (1.0, 1.0, 1.0))


def time_call(function: Callable[[], Any]) -> float:
    """Return the seconds of a core that a call takes, which do not depend on other work."""
    started = time.process_time()
    function()
    return time.process_time() - started


def compare_unchanged(folder: Path, count: int) -> None:
    """Print how long unchanged raw and preprocessed cases are compared."""
    cases, preprocessed = list[RawCase](), folder / "plans_2d"
    preprocessed.mkdir()
    lines = manifest.Manifest(preprocessed)
    with lines.path.open("w", encoding="utf-8") as file:
        for number in range(count):
            name = f"case_{number:06d}"
            image = folder / f"{name}_0000.nii.gz"
            image.write_bytes(os.urandom(64))
            cases.append(RawCase(name, "unlabelled", (str(image),)))
            arrays = [preprocessed / f"{name}{ending}" for ending in (".pkl", ".b2nd")]
            for path in arrays:
                path.write_bytes(b"array")
            facts = {"shape": [16, 64, 64], "spacing": [1.0] * 3, "quantiles": [[0.0] * 7]}
            entry = manifest.ManifestEntry.of(name, "image--plans-spacing", arrays, facts)
            file.write(manifest.json.dumps(manifest.asdict(entry)) + "\n")
    path = folder / "reports.jsonl"
    records = {case.case: (FileRecord.of(Path(case.images[0])),) for case in cases}
    write_reports(
        path,
        (
            CaseReport(case.case, case.subset, "hash", (), GEOMETRY, records=records[case.case])
            for case in cases
        ),
    )
    seconds = time_call(lambda: find_changed_cases(cases, read_reports(path), ()))
    print(f"{count} unchanged raw cases: {seconds:.2f} s")
    seconds = time_call(lambda: manifest.read_sources(preprocessed))
    print(f"{count} preprocessed cases, list read: {seconds:.2f} s")
    seconds = time_call(lambda: manifest.read_sources(preprocessed))
    print(f"{count} preprocessed cases, list read before: {seconds:.2f} s")


def preprocess_first(folder: Path, count: int) -> None:
    """Print the share of a first preprocessing that is spent on hashes."""
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    raw = folder / "raw" / "Dataset901_Cost"
    write_phantom_dataset(raw, labelled=5, unlabelled=count, test=0, shape=(32, 192, 192))
    whole = time_call(
        lambda: prepare.prepare_for_training(
            "901", ["2d"], None, prepare.PLANNER, num_processes=1, skip_bad=False
        )
    )
    files = [path for path in folder.rglob("*") if path.suffix in (".gz", ".b2nd", ".pkl")]
    hashes = time_call(lambda: [sha256_of_file(path) for path in files])
    size = sum(path.stat().st_size for path in files) / 2**20
    print(
        f"first preprocessing of {count} images: {whole:.1f} s, hashing its {size:.0f} MiB: "
        f"{hashes:.2f} s, {hashes / whole:.1%}"
    )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare_unchanged(Path(folder), options.cases)
    with tempfile.TemporaryDirectory() as folder:
        preprocess_first(Path(folder), options.images)


if __name__ == "__main__":
    main()
