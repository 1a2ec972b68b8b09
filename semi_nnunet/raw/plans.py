"""Plans files and their configurations, read without nnU-Net's classes, whose import is slow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json
from semi_nnunet.util.lock import held

logger = logging.getLogger(__name__)


def read_plans(preprocessed: Path, name: str) -> dict[str, Any]:
    """Return the plans ``name`` of a preprocessed data set.

    Raises:
        UserError: the plans do not exist (the fix names the existing ones), or have other names
            inside.
    """
    path = preprocessed / f"{name}.json"
    if path.is_file() and is_plans_file(path):
        plans = dict(read_json(path))
        require_own_names(path, plans)
        return plans
    existing = [file.stem for file in list_plans_files(preprocessed)]
    defect = "holds no plans" if path.is_file() else "does not exist"
    if existing:
        fix = f"choose -p from {', '.join(existing)}"
    else:
        fix = f"semi_nnunet preprocess -d {preprocessed.name} first"
    raise UserError(f"{path} {defect}", fix=fix)


@contextmanager
def held_plans(preprocessed: Path, name: str) -> Iterator[None]:
    """Hold the lock on plans of a preprocessed data set; wait for the process that has it."""

    def log_waiting(holder: str) -> None:
        logger.info("%s writes the plans %s: waiting for it", holder, name)

    with held(preprocessed / f".semi_plan_{name}.lock", log_waiting):
        yield


def require_own_names(path: Path, plans: Mapping[str, Any]) -> None:
    """Raise a :class:`UserError` for plans whose names inside are not those of their place."""
    raise_if_any(f"{path} cannot be used:", find_plans_name_problems(path, plans))


def find_plans_name_problems(path: Path, plans: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each name inside plans that differs from the name of their place.

    nnU-Net writes results under the names inside. Plans that were copied by hand would overwrite
    the trainings of other plans, or of another data set.

    >>> plans = {"plans_name": "nnUNetPlans", "dataset_name": "Dataset042_Pancreas"}
    >>> problems = find_plans_name_problems(Path("Dataset042_Pancreas/mine.json"), plans)
    >>> [problem.what for problem in problems]
    ["'plans_name' must be 'mine', got 'nnUNetPlans'"]
    """
    places = {"plans_name": path.stem, "dataset_name": path.parent.name}
    for key, name in places.items():
        if plans.get(key, name) != name:
            fix = f'write "{key}": "{name}" into it'
            if key == "dataset_name":
                fix += " if the data set was renamed; nnUNetv2_move_plans_between_datasets copies"
                fix += " plans of another one"
            yield Problem(path.name, f"{key!r} must be {name!r}, got {plans[key]!r}", fix)


def list_plans_files(preprocessed: Path) -> list[Path]:
    """Return the files of a preprocessed data set that hold plans, by name."""
    return [path for path in sorted(preprocessed.glob("*.json")) if is_plans_file(path)]


def is_plans_file(path: Path) -> bool:
    """Return whether a JSON file holds nnU-Net's plans."""
    return is_plans(read_json(path))


def is_plans(content: Any) -> bool:
    """Return whether content of a JSON file is that of nnU-Net's plans."""
    return isinstance(content, dict) and "plans_name" in content


def resolve_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return a configuration with all that it inherits, as nnU-Net's PlansManager resolves it.

    >>> plans = {"configurations": {"2d": {"batch_size": 4, "spacing": [1, 1]},
    ...                             "small": {"inherits_from": "2d", "batch_size": 2}}}
    >>> resolve_configuration(plans, "small")
    {'batch_size': 2, 'spacing': [1, 1]}

    Args:
        plans: content of a plans file.
        name: such as "3d_cascade_fullres".

    Returns:
        The configuration, or None if the plans lack it.

    Raises:
        UserError: it inherits from a missing configuration or, in a circle, from itself.
    """
    configurations = plans["configurations"]
    if name not in configurations:
        return None
    resolved, chain = dict(configurations[name]), [name]
    while (parent := resolved.pop("inherits_from", None)) is not None:
        if parent in chain or parent not in configurations:
            why = "inherits from it" if parent in chain else "the plans do not have"
            raise UserError(
                f"configuration {chain[-1]} inherits from {parent}, which {why}", fix="plan again"
            )
        chain.append(parent)
        resolved = {**configurations[parent], **resolved}
    return resolved


def list_next_stages(configuration: Mapping[str, Any]) -> list[str]:
    """Return the cascade configurations that take the predictions of this configuration."""
    stages = configuration.get("next_stage") or []
    return [stages] if isinstance(stages, str) else list(stages)
