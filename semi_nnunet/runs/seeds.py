"""Plans of a seed: the same plans with another seed, under a name of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semi_nnunet.runs.folders import Folders
from semi_nnunet.settings.overrides import given_before, without_new_rules
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import read_json, write_json


def seed_name(plans: str, seed: int) -> str:
    """The plans of a seed; seed 0 has the plans themselves."""
    return f"{plans}_seed{seed}" if seed else plans


def unseeded(plans: str) -> tuple[str, int]:
    """The plans that ``crossval`` made those of a seed from, and the seed."""
    name, _, seed = plans.rpartition("_seed")
    return (name, int(seed)) if name and seed.isdecimal() else (plans, 0)


def write_seed(folders: Folders, plans: str, content: dict[str, Any], seed: int) -> str:
    """Write the same plans with another seed, counted from theirs; returns their name.

    Raises:
        UserError: they exist with other settings, and something was trained with them.
    """
    name = seed_name(plans, seed)
    semi = content.get("semi", {})
    own = {**semi, "seed": semi.get("seed", 0) + seed}
    changed = {**content, "plans_name": name, "semi": own}
    changed.pop("semi_planned", None)
    path = folders.preprocessed / f"{name}.json"
    if path.is_file():
        before = read_json(path)
        had = without_new_rules(own, before.get("semi", {}), {**given_before(content), "seed": 0})
        if before in (changed, {**changed, "semi": had}):
            return name  # what it lacks, the training plans by today's rules
    trained = sorted(folders.results.glob(f"*__{name}__*/fold_*/checkpoint_*.pth"))
    if path.is_file() and trained:
        raise UserError(
            f"{path} differs from {plans} by more than the seed, and {trained[0].parent} was "
            f"trained with it",
            fix="move these results away, or give the new plans another name "
            "(semi_nnunet plan --name)",
        )
    write_json(path, changed)
    return name


def seed_problems(content: dict[str, Any], plans: str) -> Iterator[Problem]:
    """Seeds of single sections, which hold whatever the plans' own seed is."""
    semi = content.get("semi", {})
    sections = {name: part for name, part in semi.items() if isinstance(part, dict)}
    for name, section in sections.items():
        inner = {f"{name}.{key}": part for key, part in section.items() if isinstance(part, dict)}
        for where, part in {name: section, **inner}.items():
            if "seed" in part:
                what = f"{where}.seed is given, so that every seed would be the same training"
                yield Problem(plans, what, "set the seed of all instead (semi_nnunet plan --reset)")
