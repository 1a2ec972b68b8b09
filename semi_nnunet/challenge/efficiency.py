"""Measure the cost of a submission per case, as FLARE does, together with its quality.

FLARE calls the container once for each case, so that its start counts, and samples the machine
meanwhile. Here the command can be any that reads a folder of one case and writes another.
"""

from __future__ import annotations

import logging
import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from semi_nnunet.challenge.sampling import ProgramCost, measure_program
from semi_nnunet.evaluation.folder import make_protocol
from semi_nnunet.evaluation.labelling import read_labelling
from semi_nnunet.evaluation.measuring import (
    evaluate_folders,
    find_dataset_json,
    parse_class_tolerances,
)
from semi_nnunet.evaluation.tables import average_defined
from semi_nnunet.raw.description import find_cases
from semi_nnunet.raw.readers import with_spacing_files
from semi_nnunet.runs.commands import interrupt_on_signals
from semi_nnunet.util.errors import Problem, UserError, collect_errors, raise_if_any
from semi_nnunet.util.files import (
    optional_json,
    sha256_of_json,
    sha256_of_version,
    write_csv,
    write_json,
)
from semi_nnunet.util.names import not_above_zero

JSON = "efficiency.json"
INPUTS, OUTPUTS = "{inputs}", "{outputs}"
IDLE = 15.0  # percent of the processors that other programs may use before
COLUMNS = ("seconds", "cpu_area", "memory", "own_memory", "gpu_area", "gpu_memory")
UNITS = {
    "seconds": "s", "cpu_area": "% s", "memory": "MiB", "own_memory": "MiB", "gpu_area": "MiB s",
    "gpu_memory": "MiB",
}  # fmt: skip
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EfficiencyResult:
    """The measured cost and quality of a submission.

    >>> result = EfficiencyResult(Path(), {"a": {"seconds": 2.0}, "b": {"seconds": 4.0}}, ())
    >>> result.means
    {'seconds': 3.0}

    Args:
        folder: of efficiency.csv, efficiency.json, and outputs/ with the segmentations.
        cases: case -> its cost, and with references its "dice" and "nsd", None if it holds no
            class.
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
        columns = {name: [row[name] for row in self.cases.values() if row.get(name) is not None]
                   for name in names}  # fmt: skip
        return {name: float(np.mean(values)) for name, values in columns.items() if values}


def measure_efficiency(
    command: str,
    images: str | Path,
    out: str | Path,
    *,
    references: str | Path | None = None,
    class_tolerances: Mapping[str, float] | Sequence[str] = (),
    ending: str = ".nii.gz",
    limit: float | None = None,
) -> EfficiencyResult:
    """Run a submission on one case after another, and measure the cost of each.

    :func:`semi_nnunet.efficiency` documents the arguments. Finished measurements are kept.
    """
    cases, folder = find_cases(images, ending), Path(out)
    labels = None if references is None else Path(references)
    words, problems = split_command(command)
    problems += [] if problems else find_command_problems(words)
    if not cases:
        message = f"must hold images CASE_0000{ending}, got none"
        problems.append(Problem(str(images), message, "correct the folder"))
    problems += not_above_zero({"--limit": limit})
    if labels is not None:
        problems += find_reference_problems(cases, labels, class_tolerances, ending)
    how = {"command": command, "limit": limit, "images": compute_images_digest(cases)}
    unfinished = load_unfinished_result(folder, how, cases)
    if unfinished is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = "must be new or empty, or of the same command, --limit and images, interrupted"
        problems.append(Problem(str(folder), message, "choose another -o, or remove it"))
    require_idle_machine(problems)
    rows, case_problems = unfinished or {}, list[Problem]()
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    write_unfinished_result(folder, how, rows, case_problems)
    for number, (case, files) in enumerate(cases.items(), 1):
        if case in rows:
            continue
        with interrupt_on_signals():
            cost, written = measure_case(words, folder / "case", files, limit)
        segmentations = [path for path in written if path.name == f"{case}{ending}"]
        for path in with_spacing_files(segmentations, is_label=True):
            shutil.move(path, outputs / path.name)
        rows[case] = {name: getattr(cost, name) for name in COLUMNS}
        problem = find_case_problem(case, cost, bool(segmentations), limit)
        case_problems += [problem] if problem else []
        spent = f"{cost.seconds:.1f} s, at most {cost.own_memory:.0f} MiB"
        spent += f"; {problem.what}" if problem else ""
        logger.info(f"{number} of {len(cases)} {case}: {spent}")
        write_unfinished_result(folder, how, rows, case_problems)
    shutil.rmtree(folder / "case", ignore_errors=True)
    if labels is not None:
        with collect_errors(case_problems, "Dice and NSD"):  # the costs are kept
            add_dice_and_nsd(rows, outputs, labels, class_tolerances)
    result = EfficiencyResult(folder, rows, tuple(case_problems))
    content = {**how, "units": UNITS, "mean": result.means, "cases": rows}
    names = [*COLUMNS, *(("dice", "nsd") if labels is not None else ())]
    table = [[case, *(row.get(name) for name in names)] for case, row in rows.items()]
    write_csv(folder / "efficiency.csv", [["case", *names], *table])
    write_json(folder / JSON, content)
    return result


# ---- checks before the first case ----


def split_command(command: str) -> tuple[list[str], list[Problem]]:
    """Return the words of a command, or the problem with its quotes.

    >>> split_command("sh 'my script.sh' {inputs}")
    (['sh', 'my script.sh', '{inputs}'], [])
    """
    try:
        return shlex.split(command), []
    except ValueError as error:
        message = f"must be a line as for a shell, got {str(error).lower()} in {command}"
        return [], [Problem("--command", message, "close its quotes")]


def find_command_problems(words: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for a missing folder of a case, or a program that is not found."""
    for placeholder in (INPUTS, OUTPUTS):
        if not any(placeholder in word for word in words):
            message = f"must hold {placeholder}, got {shlex.join(words)}"
            yield Problem("--command", message, f"put {placeholder} into it")
    if words and shutil.which(words[0]) is None:
        yield Problem(words[0], "must be a program that is found, got none", "install it")


def find_reference_problems(
    cases: Mapping[str, Any],
    references: Path,
    tolerances: Mapping[str, float] | Sequence[str],
    ending: str,
) -> list[Problem]:
    """Return problems that would prevent the comparison with references, hours later.

    Args:
        cases: to be segmented.
        references: folder of the true labels.
        tolerances: of the classes.
        ending: of the files.
    """
    per_class, problems = parse_class_tolerances(tolerances)
    missing = [case for case in cases if not (references / f"{case}{ending}").is_file()]
    for case in missing:
        message = f"must have the label {references / case}{ending}, got none"
        problems.append(Problem(case, message, "add it, or leave -r out"))
    if not missing and cases and not problems:
        example = str(references / f"{next(iter(cases))}{ending}")
        with collect_errors(problems, "-r"):
            labelling = read_labelling(find_dataset_json(references, references), example)
            make_protocol(labelling, [example], (1.0,), per_class)
    return problems


def require_idle_machine(problems: Sequence[Problem]) -> None:
    """Check that the measurement will mean something, before it begins.

    Args:
        problems: found so far.

    Raises:
        UserError: there are problems, or other programs use the processors.
    """
    problems = [*problems]
    if not problems and (busy := psutil.cpu_percent(1.0)) > IDLE:
        message = (
            f"must be idle but for at most {IDLE:g} %, got {busy:.0f} % of its processors in use"
        )
        fix = "end other programs: their cost would count"
        problems.append(Problem("this machine", message, fix))
    raise_if_any("the cost of a submission cannot be measured:", problems)


# ---- unfinished measurements ----


def write_unfinished_result(
    folder: Path, how: Mapping[str, Any], rows: Mapping[str, Any], problems: Sequence[Problem]
) -> None:
    """Write measurements in case of an interruption; without means they count as unfinished."""
    content = {**how, "cases": rows, "problems": [*map(asdict, problems)]}
    write_json(folder / JSON, content)


def compute_images_digest(cases: Mapping[str, Sequence[str]]) -> str:
    """Return a checksum of the names and bytes of all images, and of the files of spacings."""
    files = {case: with_spacing_files(images, is_label=False) for case, images in cases.items()}
    return sha256_of_json({case: list(map(sha256_of_version, files[case])) for case in files})


def load_unfinished_result(
    folder: Path, how: Mapping[str, Any], cases: Mapping[str, Any]
) -> dict[str, dict[str, Any]] | None:
    """Load the measurements of an interrupted call, without failed cases, which are tried again.

    Args:
        folder: of the measurement.
        how: the command as it was typed, the limit in seconds, and a digest of the images.
        cases: to be measured.

    Returns:
        None if there are none, they belong to another command, limit or images, or are finished.
    """
    content = optional_json(folder / JSON)
    rows = content.get("cases", {})
    differs = any(content.get(key) != value for key, value in how.items())
    if differs or "mean" in content or not {*rows} <= {*cases}:
        return None
    failed = {problem["where"] for problem in content.get("problems", [])}
    return {case: row for case, row in rows.items() if case not in failed}


# ---- one case ----


def measure_case(
    words: Sequence[str], folder: Path, files: Sequence[str], limit: float | None = None
) -> tuple[ProgramCost, list[Path]]:
    """Run the command on the files of a case in folders of its own.

    Args:
        words: of the command.
        folder: is emptied first.
        files: of the case.
        limit: seconds.

    Returns:
        The cost, and the files in the output folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise UserError(
            f"{folder} holds files of another user, such as root in a container",
            fix='remove it, and run the container with --user "$(id -u)"',
        )
    inputs, outputs = folder / "inputs", folder / "outputs"
    for path in (inputs, outputs):
        path.mkdir(parents=True)
    for file in with_spacing_files(files, is_label=False):
        Path(shutil.copy(file, inputs)).chmod(0o644)
    # containers run as other users
    folder.chmod(0o755)
    inputs.chmod(0o755)
    outputs.chmod(0o777)
    folders = {INPUTS: str(inputs.absolute()), OUTPUTS: str(outputs.absolute())}
    command = [fill_placeholders(word, folders) for word in words]
    with (folder.parent / "log.txt").open("a", encoding="utf-8") as log:
        cost = measure_program(command, limit, say=lambda line: print(line, file=log))
    return cost, sorted(path for path in outputs.iterdir() if path.is_file())


def fill_placeholders(word: str, folders: Mapping[str, str]) -> str:
    """Replace placeholders in a word of a command by folders.

    >>> fill_placeholders("{inputs}:/workspace/inputs/", {"{inputs}": "/tmp/case"})
    '/tmp/case:/workspace/inputs/'
    """
    for placeholder, folder in folders.items():
        word = word.replace(placeholder, folder)
    return word


def find_case_problem(
    case: str, cost: ProgramCost, has_output: bool, limit: float | None
) -> Problem | None:
    """Return the problem that makes a case's measurement worthless, or None."""
    if cost.exit_code is None:
        return Problem(case, f"took longer than {limit:g} s and was ended", "see log.txt")
    if cost.exit_code:
        return Problem(case, f"ended with status {cost.exit_code}", "see log.txt")
    if not has_output:
        return Problem(case, "has no segmentation of its name", "see log.txt")
    if cost.is_coarse:
        message = f"was not sampled for {cost.gap:.1f} s, so that areas and peaks mean little"
        return Problem(case, message, "measure again on an idle machine")
    return None


def add_dice_and_nsd(
    rows: dict[str, dict[str, Any]],
    outputs: Path,
    references: Path,
    tolerances: Mapping[str, float] | Sequence[str],
) -> None:
    """Add each case's Dice and NSD, means over its classes; 0 if it has no segmentation.

    None if neither the segmentation nor the reference holds any class.

    Raises:
        UserError: segmentations cannot be compared with their references.
    """
    for row in rows.values():
        row |= {"dice": None, "nsd": None}
    measured = list[dict[str, Any]]()
    if any(outputs.iterdir()):
        measured = evaluate_folders(
            outputs, references, dataset_json=find_dataset_json(references, references),
            class_tolerances=tolerances, partial=True, processes=1,
        ).content["cases"]  # fmt: skip
    start = "nsd_surfel_own" if tolerances else "nsd_surfel_1"  # of one millimetre, or pixel
    nsd = next((column for column in next(iter(measured), {}) if column.startswith(start)), "")
    segmented = {values["case"] for values in measured}
    for case, row in rows.items():
        for name, column in (("dice", "dice"), ("nsd", nsd)):
            mean = average_defined(
                [values[column] for values in measured if values["case"] == case]
            )
            if case not in segmented:
                row[name] = 0.0
            elif not math.isnan(mean):
                row[name] = mean


def format_mean_costs(result: EfficiencyResult) -> str:
    """Return the means as a table of text."""
    means = result.means
    rows = [(name, means[name], UNITS.get(name, "")) for name in (*COLUMNS, "dice", "nsd")
            if name in means]  # fmt: skip
    return "\n".join(f"  {name:<12} {value:12.3f} {unit}" for name, value, unit in rows)
