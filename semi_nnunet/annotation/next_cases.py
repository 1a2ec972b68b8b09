"""Choose the cases to annotate next, write their table and page, and perhaps labels to correct."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from semi_nnunet.annotation.choosing import (
    MODEL_RULES,
    AnnotationChoice,
    CasePool,
    Rule,
    choose_from_pool,
    collect_pool,
    count_labelled_cases,
    score_pool,
)
from semi_nnunet.annotation.pages import write_next_page
from semi_nnunet.annotation.review import PROPOSALS_RECORD
from semi_nnunet.annotation.segmentations import ENDING, SEGMENTATIONS, write_segmentations
from semi_nnunet.deploy.trained import require_same_data
from semi_nnunet.preprocessing.manifest import WrittenLabels
from semi_nnunet.pseudo_labels.label import label_pool
from semi_nnunet.pseudo_labels.label_folders import locate_model_labels
from semi_nnunet.pseudo_labels.pool import REQUEST, LabellingRequest
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.layout import (
    CHECKED_FILE,
    UNLABELLED_IMAGES,
    find_raw_dataset,
    find_unfinished_round,
    get_preprocessed_dataset,
)
from semi_nnunet.raw.readers import with_spacing_files
from semi_nnunet.reporting.label_tables import write_label_tables
from semi_nnunet.runs.launching import JobLauncher, UnfinishedError
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import (
    file_in_the_way,
    optional_json,
    require_place,
    write_csv,
    write_json,
)
from semi_nnunet.util.names import list_first
from semi_nnunet.util.verb_commands import suggest_command

logger = logging.getLogger(__name__)
DEFAULT_RULE: Rule = "typical"  # never worse than a random draw so far (docs/annotation.md)
TABLE, PAGE = "next.csv", "next.html"
IMAGES, LABELS = "images", "labels"  # folders of the chosen cases and of their proposals
PROPOSED = "proposed"  # folder of the models' labels of the chosen cases only


def choose_next_cases(
    dataset: str,
    number: int,
    models: Sequence[str] = (),
    *,
    rule: Rule | None = None,
    views: Sequence[str] = (),
    out: str | Path = "next_cases",
    proposals: bool = False,
    seed: int = 0,
    processes: int = 1,
    launcher: JobLauncher | None = None,
) -> AnnotationChoice:
    """Choose the cases to annotate next, and write a table, a page and perhaps proposals.

    :func:`semi_nnunet.next` documents the arguments and errors.
    """
    rule = rule or DEFAULT_RULE
    raw = RawDataset.of(find_raw_dataset(dataset))
    problems = find_rule_problems(rule, models, views, proposals)
    raise_if_any("next cannot start:", [*problems, *find_unfinished_round(raw.folder)])
    out, preprocessed = Path(out), get_preprocessed_dataset(dataset)
    if file := file_in_the_way(out):
        raise UserError(f"-o {out} must be a folder, and {file} is a file", fix="choose another")
    request = None
    if models:
        images, folder = (out / IMAGES).absolute(), (out / PROPOSED).absolute()
        if rule in MODEL_RULES:  # which need the labels of all images
            images = raw.folder / UNLABELLED_IMAGES
            folder = locate_model_labels(raw.folder, models, views)
        request = LabellingRequest(images, folder, tuple(models), tuple(views))
        require_same_data(request.trained, raw.content, raw.folder.name)
    out.mkdir(parents=True, exist_ok=True)
    for name in (TABLE, PAGE):
        require_place(out / name)
    pool = collect_pool(raw, preprocessed, out / CHECKED_FILE, processes)
    scores, notes, launcher = None, list(pool.notes), launcher or JobLauncher()
    if request is not None and rule in MODEL_RULES:
        label_images(request, launcher)
        scores = score_pool(pool, request, processes)
    counts = count_labelled_cases(raw, processes) if scores is None else scores.labelled
    notes += _describe_limits(pool, counts, rule, number)
    chosen = choose_from_pool(pool, scores, rule, number, seed)
    texts = ["" if c.uncertainty is None else f"{c.uncertainty:.6f}" for c in chosen]
    rows = [[c.case, text, c.reason] for c, text in zip(chosen, texts, strict=True)]
    write_csv(out / TABLE, [["case", "uncertainty", "reason"], *rows])
    review = None
    if request is not None and proposals:
        cases = [case.case for case in chosen]
        remove_unchanged_proposals(out, raw.description["file_ending"])
        copy_images(out, raw, cases)
        if rule not in MODEL_RULES:
            if optional_json(request.out / REQUEST) not in ({}, request.record()):
                shutil.rmtree(request.out)  # of an earlier call with other models
            label_images(request, launcher)
        review = copy_proposals(out, raw, request, cases)
        write_json(out / PROPOSALS_RECORD, {"folder": str(request.out.absolute())})
    accept = suggest_command(
        "accept",
        dataset=raw.folder.name,
        reviewed=review or Path("reviewed"),
        proposals=request.out if request and review else None,
    )
    choice = AnnotationChoice(
        raw.folder.name, rule, tuple(chosen), len(pool.cases), tuple(notes), out / PAGE,
        out / TABLE, accept, review,
    )  # fmt: skip
    write_next_page(choice, raw, request)
    return choice


def label_images(request: LabellingRequest, launcher: JobLauncher) -> None:
    """Label images with the models.

    Raises:
        UnfinishedError: a cluster has not labelled all of them yet.
    """
    if label_pool(request, launcher) is None:
        raise UnfinishedError("the images are not labelled yet", fix="run the command again")


def find_rule_problems(
    rule: Rule, models: Sequence[str], views: Sequence[str], proposals: bool
) -> list[Problem]:
    """Return what does not fit together, before anything is computed."""
    problems = list[Problem]()
    if rule not in get_args(Rule):
        problems.append(
            Problem(f"--rule {rule}", "does not exist", f"choose from {', '.join(get_args(Rule))}")
        )
    if rule in MODEL_RULES and not models:
        problems.append(Problem(f"--rule {rule}", "needs a model", "name one with -m"))
    if rule in ("typical", "random") and models and not proposals:
        fix = "add --proposals to have labels to correct, choose --rule uncertain, or omit -m"
        problems.append(Problem("-m", f"is not used by --rule {rule}", fix))
    if proposals and not models:
        problems.append(Problem("--proposals", "needs a model", "name one with -m"))
    if views and not models:
        problems.append(Problem("--views", "needs a model", "name one with -m"))
    return problems


def _describe_limits(
    pool: CasePool, labelled: Mapping[str, int], rule: Rule, number: int
) -> list[str]:
    """Return what makes the choice smaller or blinder than was asked for."""
    notes, patients = list[str](), len(set(pool.groups))
    if number > patients:
        notes.append(
            f"{number} cases were asked for, and {patients} can be chosen: at most one of each "
            f"patient and of near-twins in a round"
        )
    if pool.raw.labelled and (missing := [name for name, count in labelled.items() if not count]):
        blind = "; models cannot see it before a label does" if rule in MODEL_RULES else ""
        notes.append(f"no labelled case shows {list_first(missing)}{blind}")
    return notes


def copy_images(out: Path, raw: RawDataset, cases: Sequence[str]) -> None:
    """Copy the images of cases, and of those in labels/, into images/; remove all others there."""
    images = {case.case: case.images for case in raw.cases if case.subset == "unlabelled"}
    ending, folder = raw.description["file_ending"], out / IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    in_review = {path.name.removesuffix(ending) for path in (out / LABELS).glob(f"*{ending}")}
    copied = set[str]()
    for case in sorted({*cases, *in_review.intersection(images)}):
        for image in images[case]:
            copied |= {file.name for file in _copy_with_spacing(Path(image), folder, False)}
    for path in folder.iterdir():
        if path.is_file() and path.name not in copied:
            path.unlink()


def copy_proposals(
    out: Path, raw: RawDataset, request: LabellingRequest, cases: Sequence[str]
) -> Path:
    """Copy the proposed labels into labels/.

    Label tables for ITK-SNAP and 3D Slicer, and segmentations of the latter, are written, too. What
    a reviewer changed since an earlier call stays. Unchanged proposals of that call go: they may
    be those of another model, or of cases that are not chosen any more.

    Returns:
        The folder of the labels, which ``accept`` reads.
    """
    labels, segmentations = out / LABELS, out / SEGMENTATIONS
    labels.mkdir(parents=True, exist_ok=True)
    written = WrittenLabels(labels)
    for case in cases:
        proposal, segmentation = request.label_path(case), segmentations / f"{case}{ENDING}"
        label = labels / proposal.name
        if label.exists() or segmentation.exists() or not proposal.is_file():
            continue
        # recorded first: after a kill, it still counts as a proposal
        written.record(case, proposal)
        _copy_with_spacing(proposal, labels, is_label=True)
        write_segmentations([label], raw.description, segmentations)
    write_label_tables(out, raw.description)
    return labels


def remove_unchanged_proposals(out: Path, ending: str) -> None:
    """Remove the unchanged proposals of an earlier call.

    If a label or its segmentation was changed, both stay; so do files without a record.

    Args:
        out: the folder of the call.
        ending: of labels.
    """
    cases: dict[str, list[tuple[Path, bool]]] = {}
    for folder, end in ((out / LABELS, ending), (out / SEGMENTATIONS, ENDING)):
        unchanged = WrittenLabels(folder).list_unchanged()
        for path in sorted(folder.glob(f"*{end}")):
            case = path.name.removesuffix(end)
            cases.setdefault(case, []).append((path, case in unchanged))
    for files in cases.values():
        if changed := [path for path, is_proposal in files if not is_proposal]:
            logger.info(f"{changed[0]} was changed and stays")
            continue
        for path, _ in files:
            path.unlink()


def _copy_with_spacing(path: Path, folder: Path, is_label: bool) -> list[Path]:
    """Copy a file, and the file that holds its spacing, if there is one; return the copies."""
    return [Path(shutil.copy2(file, folder)) for file in with_spacing_files([path], is_label)]
