"""Measure what the records of files cost: when thousands of unchanged cases are compared with them,
and when a data set is preprocessed for the first time.

    python scripts/provenance_cost.py [--cases 10000]
    python scripts/provenance_cost.py --first 504 [-c 2d]

Works in a temporary folder. Prints the seconds of a core in which the files of unchanged cases are
compared, and the list of preprocessed cases is read. With --first, preprocesses this data set of
nnUNet_raw instead, and prints the share of these seconds that the checksums of its files take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry, read_sources
from semi_nnunet.raw.description import RawCase
from semi_nnunet.raw.readers import Geometry
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
    lines = Manifest(preprocessed)
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
            entry = ManifestEntry.of(name, "image--plans-spacing", arrays, facts)
            file.write(json.dumps(asdict(entry)) + "\n")
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
    seconds = time_call(lambda: read_sources(preprocessed))
    print(f"{count} preprocessed cases, list read: {seconds:.2f} s")
    seconds = time_call(lambda: read_sources(preprocessed))
    print(f"{count} preprocessed cases, list read before: {seconds:.2f} s")


def preprocess_first(folder: Path, dataset: str, configuration: str) -> None:
    """Print which share of a first preprocessing the checksums of its files take."""
    command = [
        sys.executable,
        "-m",
        "semi_nnunet",
        "preprocess",
        "-d",
        dataset,
        "-c",
        configuration,
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "nnUNet_preprocessed": str(folder)}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    (preprocessed,) = folder.iterdir()
    raw = Path(os.environ["nnUNet_raw"]) / preprocessed.name
    files = [
        path
        for name in ("imagesTr", "labelsTr", "imagesUn", "imagesTs")
        for path in (raw / name).glob("*")
    ]
    files += [path for manifest in read_manifests(preprocessed) for path in manifest]
    seconds = time_call(lambda: [FileRecord.of(path) for path in files])
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.0f} MiB")
    print(f"first preprocessing {total:.1f} s, checksums {seconds:.2f} s: {seconds / total:.1%}")


def read_manifests(preprocessed: Path) -> Iterator[list[Path]]:
    """Yield the files that each list of preprocessed cases names."""
    for path in preprocessed.glob("*.manifest.jsonl"):
        folder = preprocessed / path.name.removesuffix(".manifest.jsonl")
        entries = Manifest(folder).present().values()
        yield [folder / name for entry in entries for name in entry.files]


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", metavar="DATASET")
    parser.add_argument("-c", dest="configuration", default="2d")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.first:
            preprocess_first(Path(folder), options.first, options.configuration)
        else:
            compare_unchanged(Path(folder), options.cases)


if __name__ == "__main__":
    main()
