"""Short trainings are planned with Adam, long ones with SGD; CPUs compute in what is fast."""

import pytest

from semi_nnunet.automatic.settings import ADAM_BELOW, settings_of_device, settings_of_steps
from semi_nnunet.settings.assignments import parse_assignments


def test_the_optimizer_depends_on_the_steps() -> None:
    few = parse_assignments(settings_of_steps(ADAM_BELOW - 1))
    assert few == {"optimizer": "adam", "initial_lr": 0.001}
    assert settings_of_steps(ADAM_BELOW) == ()


@pytest.mark.parametrize("fast", [True, False])
def test_the_arithmetic_depends_on_the_device(fast: bool, monkeypatch) -> None:
    monkeypatch.setattr("semi_nnunet.automatic.settings.computes_bfloat16_fast", lambda: fast)
    planned = parse_assignments(settings_of_device("cpu"))
    assert planned == ({"mixed_precision": "bfloat16"} if fast else {})
    assert settings_of_device("cuda") == ()
