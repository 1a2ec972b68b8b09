"""What a submission costs a case, as FLARE measures it, beside how well it segments.

FLARE calls the container once for each case, so that its start counts, and samples the machine
meanwhile. Here any command can be measured that reads a folder of one case and writes another.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from semi_nnunet.challenge.sampling import Cost, cost_of
from semi_nnunet.data.raw_description import cases_in
from semi_nnunet.evaluation.measuring import evaluate
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import write_csv, write_json

INPUTS, OUTPUTS = "{inputs}", "{outputs}"
IDLE = 15.0  # percent of the processors that others may use before
COLUMNS = ("seconds", "cpu_area", "memory", "own_memory", "gpu_area", "gpu_memory")
UNITS = {
    "seconds": "s", "cpu_area": "% s", "memory": "MiB", "own_memory": "MiB", "gpu_area": "MiB s",
    "gpu_memory": "MiB",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was measured of a submission.

    Args:
        folder: of efficiency.csv, efficiency.json, and outputs/ with the segmentations.
        cases: case -> what it cost, and where references were given its "dice" and "nsd".
        problems: cases that failed, took too long, or were sampled too rarely.
    """

    folder: Path
    cases: dict[str, dict[str, Any]]
    problems: tuple[Problem, ...]

    @property
    def means(self) -> dict[str, float]:
        """Column -> mean over the cases that have it."""
        names = {name for row in self.cases.values() for name in row}
        found = {name: [row[name] for row in self.cases.values() if row.get(name) is not None]
                 for name in names}  # fmt: skip
        return {name: float(np.mean(values)) for name, values in found.items() if values}


def efficiency(
    command: str,
    images: str | Path,
    out: str | Path,
    *,
    references: str | Path | None = None,
    class_tolerances: Mapping[str, float] | Sequence[str] = (),
    ending: str = ".nii.gz",
    limit: float | None = None,
    say: Callable[[str], None] = print,
) -> Measured:
    """Run a submission on one case after another, and measure what each costs.

    Args:
        command: a shell-like line with {inputs} and {outputs}, for which the folders of a case are
            put, for example ``docker run --rm -v {inputs}:/workspace/inputs/ -v
            {outputs}:/workspace/outputs/ NAME:latest /bin/bash -c "sh predict.sh"``.
        images: folder of files CASE_0000.ending.
        out: folder for what is measured and segmented; it must be new or empty.
        references: folder of the true labels, CASE.ending, to measure Dice and NSD, too.
        class_tolerances: class -> its tolerance in mm for NSD, see
            :func:`semi_nnunet.evaluate`; empty: 1 mm for all.
        ending: of the files.
        limit: seconds after which a case is ended (FLARE22: 60).
        say: gets a line for each case.

    Raises:
        UserError: the command has no place for its folders or its program is not found, there are
            no images, the output folder is not empty, or others use the processors.
    """
    words, cases = shlex.split(command), cases_in(images, ending)
    folder = Path(out)
    require(words, cases, Path(images), folder, ending)
    outputs, rows, problems = folder / "outputs", dict[str, dict[str, Any]](), list[Problem]()
    outputs.mkdir(parents=True, exist_ok=True)
    for number, (case, files) in enumerate(cases.items(), 1):
        cost, made = one_case(words, folder / "case", files, limit)
        rows[case] = {name: getattr(cost, name) for name in COLUMNS}
        found = [path for path in made if path.name == f"{case}{ending}"]
        for path in found:
            shutil.move(path, outputs / path.name)
        wrong = problem_of(case, cost, bool(found), limit)
        problems += [wrong] if wrong else []
        spent = f"{cost.seconds:.1f} s, at most {cost.own_memory:.0f} MiB"
        say(f"{number} of {len(cases)} {case}: {spent}" + (f"; {wrong.what}" if wrong else ""))
        write_json(folder / "efficiency.json", {"command": command, "cases": rows})
    if references is not None:
        add_quality(rows, outputs, Path(references), class_tolerances)
    measured = Measured(folder, rows, tuple(problems))
    content = {"command": command, "units": UNITS, "mean": measured.means, "cases": rows}
    write_json(folder / "efficiency.json", content)
    names = [*COLUMNS, *(("dice", "nsd") if references is not None else ())]
    table = [[case, *(row.get(name) for name in names)] for case, row in rows.items()]
    write_csv(folder / "efficiency.csv", [["case", *names], *table])
    return measured


def require(
    words: Sequence[str], cases: Mapping[str, Any], images: Path, out: Path, ending: str
) -> None:
    """Check what would make the measurement worthless, before it begins.

    Raises:
        UserError: naming all that is wrong.
    """
    wrong = [
        Problem("--command", f"must hold {place}, got {shlex.join(words)}", f"put {place} into it")
        for place in (INPUTS, OUTPUTS)
        if not any(place in word for word in words)
    ]
    if words and shutil.which(words[0]) is None:
        wrong.append(Problem(words[0], "must be a program that is found, got none", "install it"))
    if not cases:
        what = f"must hold images CASE_0000{ending}, got none"
        wrong.append(Problem(str(images), what, "correct the folder"))
    if out.is_dir() and any(out.iterdir()):
        what = "must be new or empty, got files"
        wrong.append(Problem(str(out), what, "choose another folder, or remove it"))
    if not wrong and (busy := psutil.cpu_percent(1.0)) > IDLE:
        what = f"must be idle but for at most {IDLE:g} %, got {busy:.0f} % of its processors in use"
        wrong.append(Problem("this machine", what, "end other programs: their cost would count"))
    if wrong:
        raise UserError("the cost of a submission cannot be measured:", wrong)


def one_case(
    words: Sequence[str], folder: Path, files: Sequence[str], limit: float | None = None
) -> tuple[Cost, list[Path]]:
    """Run the command on the files of a case in folders of its own.

    Args:
        words: of the command.
        folder: is made anew.
        files: of the case.
        limit: seconds.

    Returns:
        the cost, and the files in the output folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    inputs, outputs = folder / "inputs", folder / "outputs"
    for one in (inputs, outputs):
        one.mkdir(parents=True)
    for file in files:
        shutil.copy(file, inputs)
    places = {INPUTS: str(inputs.absolute()), OUTPUTS: str(outputs.absolute())}
    command = [with_places(word, places) for word in words]
    with (folder.parent / "log.txt").open("a", encoding="utf-8") as log:
        cost = cost_of(command, limit, say=lambda line: print(line, file=log))
    return cost, sorted(path for path in outputs.iterdir() if path.is_file())


def with_places(word: str, places: Mapping[str, str]) -> str:
    """A word of a command with folders in the place of their names."""
    for name, folder in places.items():
        word = word.replace(name, folder)
    return word


def problem_of(case: str, cost: Cost, has_output: bool, limit: float | None) -> Problem | None:
    """What makes a case worthless, if anything does."""
    if cost.exit_code is None:
        return Problem(case, f"took longer than {limit:g} s and was ended", "see log.txt")
    if cost.exit_code:
        return Problem(case, f"ended with status {cost.exit_code}", "see log.txt")
    if not has_output:
        return Problem(case, "has no segmentation of its name", "see log.txt")
    if cost.is_coarse:
        what = f"was not sampled for {cost.gap:.1f} s, so that areas and peaks mean little"
        return Problem(case, what, "measure again on an idle machine")
    return None


def add_quality(
    rows: dict[str, dict[str, Any]],
    outputs: Path,
    references: Path,
    tolerances: Mapping[str, float] | Sequence[str],
) -> None:
    """Add each case's Dice and NSD, means over its classes; 0 where it has no segmentation."""
    found: dict[str, list[dict[str, Any]]] = {case: [] for case in rows}
    nsd = "nsd_surfel_own" if tolerances else "nsd_surfel_1mm"
    if any(outputs.iterdir()):
        labelled = references.parent / "dataset.json"
        measured = evaluate(
            outputs, references, dataset_json=labelled if labelled.is_file() else None,
            class_tolerances=tolerances, partial=True, processes=1,
        )  # fmt: skip
        for one in measured.content["cases"]:
            found[one["case"]].append(one)
    for case, row in rows.items():
        for name, column in (("dice", "dice"), ("nsd", nsd)):
            values = [one[column] for one in found[case] if one.get(column) is not None]
            row[name] = float(np.mean(values)) if values else 0.0


def printed(measured: Measured) -> str:
    """The means as a table of text."""
    means = measured.means
    rows = [(name, means[name], UNITS.get(name, "")) for name in (*COLUMNS, "dice", "nsd")
            if name in means]  # fmt: skip
    return "\n".join(f"  {name:<12} {value:12.3f} {unit}" for name, value, unit in rows)
