"""Plans of a seed: the same plans with another seed and name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semi_nnunet.runs.folders import Folders
from semi_nnunet.settings.overrides import collect_user_layers, drop_new_rules
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import read_json, write_json


def name_seed_plans(plans: str, seed: int) -> str:
    """Return the name of the plans of a seed; seed 0 uses the plans themselves.

    >>> name_seed_plans("nnUNetPlans", 2)
    'nnUNetPlans_seed2'
    """
    return f"{plans}_seed{seed}" if seed else plans


def split_seed_name(plans: str) -> tuple[str, int]:
    """Split the name of the plans of a seed into the original plans and the seed.

    >>> split_seed_name("nnUNetPlans_seed2")
    ('nnUNetPlans', 2)
    """
    name, _, seed = plans.rpartition("_seed")
    return (name, int(seed)) if name and seed.isdecimal() else (plans, 0)


def write_seed_plans(folders: Folders, plans: str, content: dict[str, Any], seed: int) -> str:
    """Write the same plans with their seed plus ``seed``, and return their name.

    Raises:
        UserError: plans of that name have other settings, and were used for a training, or the
            user planned them.
    """
    name = name_seed_plans(plans, seed)
    semi = content.get("semi", {})
    seeded = {**semi, "seed": semi.get("seed", 0) + seed}
    changed = {**content, "plans_name": name, "semi": seeded}
    changed.pop("semi_planned", None)
    path = folders.preprocessed / f"{name}.json"
    if path.is_file():
        previous = read_json(path)
        is_planned = previous.pop("semi_planned", None) is not None  # by semi_nnunet plan
        assigned = {**collect_user_layers(content), "seed": 0}
        older = drop_new_rules(seeded, previous.get("semi", {}), assigned)
        if previous in (changed, {**changed, "semi": older}):
            return name  # the training fills in missing settings by today's rules
        defect = f"{path} differs from {plans} by more than the seed, and"
        fix = "away, or give the new plans another name (semi_nnunet plan --new-plans)"
        if trained := sorted(folders.results.glob(f"*__{name}__*/fold_*/checkpoint_*.pth")):
            what = f"{defect} {trained[0].parent} was trained with it"
            raise UserError(what, fix=f"move these results {fix}")
        if is_planned:
            raise UserError(f"{defect} semi_nnunet plan wrote it", fix=f"move it {fix}")
    write_json(path, changed)
    return name


def find_seed_problems(content: dict[str, Any], plans: str) -> Iterator[Problem]:
    """Yield sections with a seed of their own, which would be the same in the plans of all seeds.

    >>> problems = find_seed_problems({"semi": {"2d": {"seed": 7}}}, "nnUNetPlans")
    >>> [problem.what for problem in problems]
    ['2d.seed is given, so that every seed would be the same training']
    """
    semi = content.get("semi", {})
    sections = {name: section for name, section in semi.items() if isinstance(section, dict)}
    for name, section in sections.items():
        inner = {f"{name}.{key}": value for key, value in section.items()}
        for location, values in {name: section, **inner}.items():
            if isinstance(values, dict) and "seed" in values:
                message = f"{location}.seed is given, so that every seed would be the same training"
                yield Problem(
                    plans, message, "set the seed of all instead (semi_nnunet plan --reset)"
                )
