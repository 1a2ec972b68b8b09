"""Examine whether a data set is ready for training, and suggest the next command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semi_nnunet.discovery.doctor import Finding, dataset
from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.raw.layout import find_raw_dataset
from semi_nnunet.raw.plans import find_plans_name_problems, is_plans_file
from semi_nnunet.runs.folders import Folders, find_folders
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json
from semi_nnunet.workflows.before_start import find_data_problems
from semi_nnunet.workflows.next_step import suggest_for_dataset, suggest_training


def examine_dataset(name_or_id: str) -> tuple[list[Finding], list[str]]:
    """Examine a data set up to the start of a training, without writing or verifying images.

    Returns:
        Findings on the cases and on the configurations of all plans; and the next commands, which
        prepare the first missing thing, or train.

    Raises:
        UserError: there is no such raw data set, or nnU-Net's folders are not set.
    """
    raw = find_raw_dataset(name_or_id)
    folders = find_folders(raw.name)
    cases = dataset(raw, folders.preprocessed)
    preprocess = f"semi_nnunet preprocess -d {name_or_id}"
    paths = sorted(path for path in folders.preprocessed.glob("*.json") if is_plans_file(path))
    if not paths:
        if (cases.fix or "").startswith("semi_nnunet preprocess"):  # says the same
            return [replace(cases, fix=preprocess)], [preprocess]
        return [cases, Finding("plans", "there are none", preprocess)], [preprocess]
    findings, ready = [cases], list[tuple[str, str]]()
    for path in paths:
        finding, configurations = examine_plans(folders, path)
        findings.append(finding)
        ready += [(path.stem, configuration) for configuration in configurations]
    if cases.fix is not None:
        return findings, [cases.fix]
    if not ready:
        return findings, [str(findings[-1].fix)]
    if following := suggest_for_dataset(folders):
        return findings, following
    plans, configuration = max(ready, key=lambda pair: pair[0].endswith("_cpu"))
    return findings, suggest_training(raw.name, plans, configuration)


def examine_plans(folders: Folders, path: Path) -> tuple[Finding, list[str]]:
    """Return the configurations of plans that are ready, or the first missing thing.

    Returns:
        The finding, which is good if one configuration is ready, as users rarely train all; and
        the configurations that are ready.
    """
    content = read_json(path)
    for problem in find_plans_name_problems(path, content):
        return Finding(path.stem, problem.what, problem.fix), []
    ready, missing = list[str](), list[Problem]()
    for name in content["configurations"]:
        problems = [*find_data_problems(folders, content, path.stem, [name], [RECOMMENDED])]
        missing += problems
        ready += [] if problems else [name]
    if ready:
        return Finding(path.stem, f"ready to train: {', '.join(ready)}"), ready
    return Finding(path.stem, missing[0].what, missing[0].fix), ready
