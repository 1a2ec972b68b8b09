"""Examine whether a data set is ready for training, and suggest the next command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_nnunet.discovery.doctor import Finding, dataset
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.planning.properties import collect_properties, resolve_settings
from semi_nnunet.planning.teaching import collect_idle_inputs
from semi_nnunet.raw.layout import DATASET_JSON, find_raw_dataset
from semi_nnunet.raw.plans import find_plans_name_problems, is_plans_file
from semi_nnunet.runs.folders import Folders, find_folders
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json
from semi_nnunet.workflows.before_start import find_data_problems
from semi_nnunet.workflows.next_step import suggest_training


def collect_warnings(
    preprocessed: Path, plans: Mapping[str, Any], configuration: str, trainers: Sequence[str]
) -> list[Problem]:
    """Return what would take part in a training without being able to teach anything.

    Args:
        preprocessed: folder of the data set; the configuration is preprocessed with these plans.
        trainers: class names; of those that use no unlabelled images, the settings do not matter.
    """
    classes, facts = settings_classes(), our_trainers()
    names = [name for name in trainers if name in facts and facts[name].uses_unlabelled]
    settings = dict[str, SemiSettings]()
    if names:
        description = read_json(preprocessed / DATASET_JSON)
        properties = collect_properties(plans, configuration, description, preprocessed)
    for name in names:
        resolved = resolve_settings(classes[name], name, configuration, plans, properties, classes)
        settings[name] = resolved.settings
    return collect_idle_inputs(preprocessed, plans, configuration, settings)


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
    preprocess = f"semi_nnunet preprocess -d {raw.name}"
    paths = sorted(path for path in folders.preprocessed.glob("*.json") if is_plans_file(path))
    if not paths:
        return [cases, Finding("plans", "there are none", preprocess)], [preprocess]
    findings, ready = [cases], list[tuple[str, str]]()
    for path in paths:
        finding, configurations = examine_plans(folders, path)
        findings.append(finding)
        ready += [(path.stem, configuration) for configuration in configurations]
        findings += examine_teaching(folders, path, configurations)
    if cases.fix is not None:
        return findings, [cases.fix]
    if not ready:
        return findings, [str(findings[-1].fix)]
    plans, configuration = max(ready, key=lambda pair: pair[0].endswith("_cpu"))
    return findings, suggest_training(raw.name, plans, configuration)


def examine_teaching(
    folders: Folders, path: Path, configurations: Sequence[str]
) -> Iterator[Finding]:
    """Yield findings on what teaches nothing, each once for the ready configurations of plans."""
    content = read_json(path) if configurations else {}
    problems = [
        problem
        for name in configurations
        for problem in collect_warnings(folders.preprocessed, content, name, [RECOMMENDED])
    ]
    for problem in dict.fromkeys(problems):
        yield Finding(path.stem, f"{problem.where}: {problem.what}", problem.fix)


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
