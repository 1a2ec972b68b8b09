"""Short trainings are planned with Adam, long ones with nnU-Net's SGD."""

from semi_nnunet.automatic.few_steps import ADAM_BELOW, settings_where_steps_are_few
from semi_nnunet.planning.plan import parse_assignments


def test_the_optimizer_depends_on_the_steps_and_the_arithmetic_on_the_device(monkeypatch) -> None:
    name = "semi_nnunet.automatic.few_steps.computes_bfloat16_fast"
    monkeypatch.setattr(name, lambda: True)
    few = parse_assignments(settings_where_steps_are_few(ADAM_BELOW - 1, "cpu"))
    assert few == {"optimizer": "adam", "initial_lr": 0.001, "mixed_precision": "bfloat16"}
    assert parse_assignments(settings_where_steps_are_few(ADAM_BELOW, "cuda")) == {}
    monkeypatch.setattr(name, lambda: False)
    assert settings_where_steps_are_few(ADAM_BELOW, "cpu") == ()
