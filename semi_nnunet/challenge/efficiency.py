"""What a submission costs a case, as FLARE measures it, beside how well it segments.

FLARE calls the container once for each case, so that its start counts, and samples the machine
meanwhile. Here any command can be measured that reads a folder of one case and writes another.
"""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from semi_nnunet.challenge.sampling import Cost, cost_of
from semi_nnunet.data.raw_description import cases_in
from semi_nnunet.evaluation.folder import make_protocol
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.evaluation.measuring import evaluate, find_dataset_json, own_tolerances
from semi_nnunet.evaluation.tables import mean_of
from semi_nnunet.runs.commands import ended_like_ctrl_c
from semi_nnunet.util.errors import Problem, collect_errors, raise_if_any
from semi_nnunet.util.files import optional_json, write_csv, write_json

JSON = "efficiency.json"
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
        cases: case -> what it cost, and where references were given its "dice" and "nsd", None
            where it holds no class.
        problems: cases that failed, took too long, were sampled too rarely, or could not be
            compared with their references.
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

    What was measured is kept, so that calling it again after an interruption goes on.

    Args:
        command: a shell-like line with {inputs} and {outputs}, for which the folders of a case are
            put, for example ``docker run --rm -v {inputs}:/workspace/inputs/ -v
            {outputs}:/workspace/outputs/ NAME:latest /bin/bash -c "sh predict.sh"``.
        images: folder of files CASE_0000.ending.
        out: folder for what is measured and segmented; it must be new or empty, or of the same
            command that was interrupted.
        references: folder of the true labels, CASE.ending, to measure Dice and NSD, too.
        class_tolerances: class -> its tolerance in mm for NSD, see
            :func:`semi_nnunet.evaluate`; empty: 1 mm for all.
        ending: of the files.
        limit: seconds after which a case is ended (FLARE22: 60).
        say: gets a line for each case.

    Returns:
        The cost of each case, and what went wrong.

    Raises:
        UserError: the command has no place for its folders or its program is not found, images or
            references are missing, the output folder holds something else, or others use the
            processors; names all that is wrong.
    """
    cases, folder = cases_in(images, ending), Path(out)
    labels = None if references is None else Path(references)
    words, wrong = words_of(command)
    wrong += [] if wrong else command_problems(words)
    if not cases:
        what = f"must hold images CASE_0000{ending}, got none"
        wrong.append(Problem(str(images), what, "correct the folder"))
    if limit is not None and not 0 < limit < math.inf:
        wrong.append(Problem("--limit", f"must be above 0, got {limit:g}", "correct it"))
    if labels is not None:
        wrong += quality_problems(cases, labels, class_tolerances, ending)
    before = measured_before(folder, command, cases)
    if before is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "must be new or empty, or of the same command that was interrupted"
        wrong.append(Problem(str(folder), what, "choose another -o, or remove it"))
    require(wrong)
    rows, problems = before or ({}, [])
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    write_unfinished(folder, command, rows, problems)
    for number, (case, files) in enumerate(cases.items(), 1):
        if case in rows:
            continue
        with ended_like_ctrl_c():
            cost, made = one_case(words, folder / "case", files, limit)
        found = [path for path in made if path.name == f"{case}{ending}"]
        for path in found:
            shutil.move(path, outputs / path.name)
        rows[case] = {name: getattr(cost, name) for name in COLUMNS}
        bad = problem_of(case, cost, bool(found), limit)
        problems += [bad] if bad else []
        spent = f"{cost.seconds:.1f} s, at most {cost.own_memory:.0f} MiB"
        say(f"{number} of {len(cases)} {case}: {spent}" + (f"; {bad.what}" if bad else ""))
        write_unfinished(folder, command, rows, problems)
    if labels is not None:
        with collect_errors(problems, "Dice and NSD"):  # the costs are kept
            add_quality(rows, outputs, labels, class_tolerances)
    measured = Measured(folder, rows, tuple(problems))
    content = {"command": command, "units": UNITS, "mean": measured.means, "cases": rows}
    names = [*COLUMNS, *(("dice", "nsd") if labels is not None else ())]
    table = [[case, *(row.get(name) for name in names)] for case, row in rows.items()]
    write_csv(folder / "efficiency.csv", [["case", *names], *table])
    write_json(folder / JSON, content)
    return measured


def words_of(command: str) -> tuple[list[str], list[Problem]]:
    """The words of a command, and what is wrong with its quotes."""
    try:
        return shlex.split(command), []
    except ValueError as error:
        what = f"must be a line as for a shell, got {str(error).lower()} in {command}"
        return [], [Problem("--command", what, "close its quotes")]


def command_problems(words: Sequence[str]) -> Iterator[Problem]:
    """A command without a place for a case's folders, or whose program is not there."""
    for place in (INPUTS, OUTPUTS):
        if not any(place in word for word in words):
            what = f"must hold {place}, got {shlex.join(words)}"
            yield Problem("--command", what, f"put {place} into it")
    if words and shutil.which(words[0]) is None:
        yield Problem(words[0], "must be a program that is found, got none", "install it")


def quality_problems(
    cases: Mapping[str, Any],
    references: Path,
    tolerances: Mapping[str, float] | Sequence[str],
    ending: str,
) -> list[Problem]:
    """What would keep segmentations from being compared with references, hours later.

    Args:
        cases: that are segmented.
        references: folder of the true labels.
        tolerances: of the classes.
        ending: of the files.
    """
    own, found = own_tolerances(tolerances)
    missing = [case for case in cases if not (references / f"{case}{ending}").is_file()]
    for case in missing:
        what = f"must have the label {references / case}{ending}, got none"
        found.append(Problem(case, what, "add it, or leave -r out"))
    if not missing and cases and not found:
        example = str(references / f"{next(iter(cases))}{ending}")
        with collect_errors(found, "-r"):
            labelling = read_labelling(find_dataset_json(references, references), example)
            make_protocol(labelling, example, (1.0,), own)
    return found


def write_unfinished(
    folder: Path, command: str, rows: Mapping[str, Any], problems: Sequence[Problem]
) -> None:
    """Keep what was measured, for the case of an interruption; without means it is unfinished."""
    content = {"command": command, "cases": rows, "problems": [*map(asdict, problems)]}
    write_json(folder / JSON, content)


def measured_before(
    folder: Path, command: str, cases: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[Problem]] | None:
    """What the same command had measured of these cases when it was interrupted, and its problems.

    Args:
        folder: of the measurement.
        command: as it was typed.
        cases: that are to be measured.

    Returns:
        None where nothing, something else, or all was measured there.
    """
    content = optional_json(folder / JSON)
    rows = content.get("cases", {})
    if content.get("command") != command or "mean" in content or not {*rows} <= {*cases}:
        return None
    return dict(rows), [Problem(**one) for one in content.get("problems", [])]


def require(wrong: Sequence[Problem]) -> None:
    """Check what would make the measurement worthless, before it begins.

    Raises:
        UserError: something is wrong, or others use the processors.
    """
    wrong = [*wrong]
    if not wrong and (busy := psutil.cpu_percent(1.0)) > IDLE:
        what = f"must be idle but for at most {IDLE:g} %, got {busy:.0f} % of its processors in use"
        wrong.append(Problem("this machine", what, "end other programs: their cost would count"))
    raise_if_any("the cost of a submission cannot be measured:", wrong)


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
    """Add each case's Dice and NSD, means over its classes; 0 where it has no segmentation.

    None where neither the segmentation nor the reference holds any class.

    Raises:
        UserError: segmentations cannot be compared with their references.
    """
    for row in rows.values():
        row |= {"dice": None, "nsd": None}
    nsd = "nsd_surfel_own" if tolerances else "nsd_surfel_1mm"
    found = list[dict[str, Any]]()
    if any(outputs.iterdir()):
        measured = evaluate(
            outputs, references, dataset_json=find_dataset_json(references, references),
            class_tolerances=tolerances, partial=True, processes=1,
        )  # fmt: skip
        found = measured.content["cases"]
    segmented = {one["case"] for one in found}
    for case, row in rows.items():
        for name, column in (("dice", "dice"), ("nsd", nsd)):
            mean = mean_of([one[column] for one in found if one["case"] == case])
            if case not in segmented:
                row[name] = 0.0
            elif not math.isnan(mean):
                row[name] = mean


def printed(measured: Measured) -> str:
    """The means as a table of text."""
    means = measured.means
    rows = [(name, means[name], UNITS.get(name, "")) for name in (*COLUMNS, "dice", "nsd")
            if name in means]  # fmt: skip
    return "\n".join(f"  {name:<12} {value:12.3f} {unit}" for name, value, unit in rows)
