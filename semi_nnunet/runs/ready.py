"""Whether a data set is ready to be trained on, and what to type next."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.data.layout import is_plans, raw_dataset
from semi_nnunet.discovery.doctor import Finding, dataset
from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.runs.before_start import data_problems
from semi_nnunet.runs.folders import Folders, folders_of
from semi_nnunet.runs.next_step import to_train
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json


def examine_dataset(name_or_id: str) -> tuple[list[Finding], list[str]]:
    """Look at a data set up to the point where a training begins; nothing is written or verified.

    Args:
        name_or_id: of the data set.

    Returns:
        What was found: the cases, and the configurations of every plans; and the commands to type
        next, which are about the first thing that is missing, or train.

    Raises:
        UserError: there is no such raw data set, or nnU-Net's folders are not set.
    """
    raw = raw_dataset(name_or_id)
    folders = folders_of(raw.name)
    cases = dataset(raw, folders.preprocessed)
    preprocess = f"semi_nnunet preprocess -d {raw.name}"
    plans = sorted(path for path in folders.preprocessed.glob("*.json") if is_plans(path))
    if not plans:
        return [cases, Finding("plans", "there are none", preprocess)], [preprocess]
    findings, ready = [cases], list[tuple[str, str]]()
    for path in plans:
        found, configurations = plans_finding(folders, path)
        findings.append(found)
        ready += [(path.stem, one) for one in configurations]
    if cases.fix is not None:
        return findings, [cases.fix]
    if not ready:
        return findings, [str(findings[-1].fix)]
    return findings, to_train(raw.name, *max(ready, key=lambda one: one[0].endswith("_cpu")))


def plans_finding(folders: Folders, path: Path) -> tuple[Finding, list[str]]:
    """Which configurations of plans a training can begin with, and what the first other one lacks.

    Args:
        folders: of the data set.
        path: of the plans.

    Returns:
        The finding; it is well if one configuration is ready, as nobody trains all of them. The
        configurations that are ready.
    """
    content = read_json(path)
    ready, lacking = list[str](), list[Problem]()
    for name in content["configurations"]:
        problems = [*data_problems(folders, content, path.stem, [name], [RECOMMENDED])]
        lacking += problems
        ready += [] if problems else [name]
    if ready:
        return Finding(path.stem, f"ready to train: {', '.join(ready)}"), ready
    return Finding(path.stem, lacking[0].what, lacking[0].fix), ready
