"""Settings of an invented method, and functions that resolve layers of plans with them."""

from dataclasses import dataclass
from typing import Any, Optional

import pytest

from semi_nnunet.settings.overrides import collect_given_settings
from semi_nnunet.settings.schema import Resolved, planned, resolve, setting
from semi_nnunet.util.errors import Problem, UserError

TRAINER = "SemiTestTrainer"
CONFIGURATIONS = ["2d", "3d_fullres"]


@dataclass(frozen=True, kw_only=True)
class Common:
    seed: int = setting(0, "any number", low=0)
    epochs: int = planned(
        lambda properties, values: (properties["epochs"], "from the properties"), low=1
    )
    half_epochs: int = planned(lambda properties, values: (values["epochs"] // 2, "half"), low=0)
    rate: float = setting(0.01, "usual", low=0, below=1)
    optimizer: str = setting("sgd", "nnU-Net's", choices=("sgd", "adam"))
    class_weights: tuple[float, ...] | None = setting(None, "all alike", low=0)
    mirror: bool = setting(True, "nnU-Net's")
    legacy: Optional[float] = setting(None, "the older spelling of a union", high=1)  # noqa: UP045


@dataclass(frozen=True, kw_only=True)
class Method(Common):
    temperature: float = setting(0.5, "the paper's", low=0, high=1)


def collect(semi: Any, configuration: str = "2d") -> dict[str, tuple[Any, str]]:
    return collect_given_settings(semi, Common, Method, TRAINER, configuration, CONFIGURATIONS)


def resolve_layers(semi: Any, configuration: str = "2d") -> Resolved:
    return resolve(Method, {"epochs": 100}, collect(semi, configuration))


def list_problems(semi: Any) -> dict[str, Problem]:
    """Return the problems of one error, by the setting or layer that they name."""
    with pytest.raises(UserError) as caught:
        resolve_layers(semi)
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return {problem.where: problem for problem in caught.value.problems}
