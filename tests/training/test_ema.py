"""The moving-average teacher."""

import copy

import pytest
import torch
from torch import nn

from semi_nnunet.training.teacher import EmaTeacher, ema_decay_at


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1))


def train_a_little(network: nn.Module) -> None:
    """Move every parameter and the running statistics."""
    network.train()(torch.randn(4, 1, 6, 6))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize(("decay", "cap_step"), [(0.99, 99), (0.999, 999)])
def test_decay_reaches_its_cap_at_the_published_step(decay, cap_step):
    assert ema_decay_at(0, decay) == 0.0
    assert ema_decay_at(1, decay) == 0.5
    assert ema_decay_at(cap_step - 2, decay) < decay
    assert ema_decay_at(cap_step, decay) == pytest.approx(decay, abs=1e-15)
    assert ema_decay_at(10**6, decay) == decay


def test_step_zero_copies_the_student():
    student = small_network()
    teacher = EmaTeacher(student)
    train_a_little(student)
    teacher.update(student, 0, 0.99)
    for mine, theirs in zip(teacher.module.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_many_updates_equal_the_hand_written_loop():
    torch.manual_seed(0)
    student = small_network().double()
    teacher = EmaTeacher(student)
    by_hand = {name: value.clone() for name, value in student.named_parameters()}
    for step in range(30):
        train_a_little_double(student)
        teacher.update(student, step, 0.9)
        a = min(1 - 1 / (step + 1), 0.9)
        for name, value in student.named_parameters():
            by_hand[name] = a * by_hand[name] + (1 - a) * value.detach()
    for name, value in teacher.module.named_parameters():
        torch.testing.assert_close(value, by_hand[name], rtol=0, atol=1e-12)


def train_a_little_double(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_before_the_cap_the_teacher_is_the_mean_of_the_students():
    student = nn.Linear(3, 2)
    teacher = EmaTeacher(student)
    seen = []
    for step in range(20):
        train_a_little_double(student)
        seen.append(student.weight.detach().clone())
        teacher.update(student, step, 0.999)
    torch.testing.assert_close(teacher.module.weight, torch.stack(seen).mean(0))


def test_a_student_that_stands_still_is_a_fixed_point():
    student = small_network()
    teacher = EmaTeacher(student)
    for step in range(5):
        teacher.update(student, step, 0.99)
    for mine, theirs in zip(teacher.module.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_buffers_follow_the_student():
    student = small_network()
    teacher = EmaTeacher(student)
    for step in (0, 500):
        train_a_little(student)
        teacher.update(student, step, 0.99)
        for mine, theirs in zip(teacher.module.buffers(), student.buffers(), strict=True):
            assert torch.equal(mine, theirs) and mine is not theirs


def test_teacher_receives_no_gradient_and_gives_none_to_the_student():
    student = small_network()
    teacher = EmaTeacher(student)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    x = torch.randn(2, 1, 6, 6, requires_grad=True)
    (teacher.module(x).sum() + student(x).sum()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    teacher.update(student, 3, 0.99)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_train_keeps_the_teacher_in_evaluation_mode():
    student = small_network().train()
    teacher = EmaTeacher(student)
    companions = nn.ModuleDict({"teacher": teacher}).train()
    assert teacher.train() is teacher
    assert not any(module.training for module in companions["teacher"].modules())
    assert student.training
    x = torch.randn(1, 1, 6, 6)
    assert torch.equal(teacher.module(x), teacher.module(x))  # no dropout


def test_teacher_is_independent_of_the_student():
    student = small_network()
    teacher = EmaTeacher(student)
    original = copy.deepcopy(teacher.module.state_dict())
    train_a_little(student)
    for name, value in teacher.module.state_dict().items():
        assert torch.equal(value, original[name])
    mine = {value.data_ptr() for value in teacher.parameters()}
    assert mine.isdisjoint(value.data_ptr() for value in student.parameters())


def test_state_dict_is_the_students_under_module_and_restores_the_teacher():
    student = small_network()
    teacher, other = EmaTeacher(student), EmaTeacher(small_network())
    state = teacher.state_dict()
    assert list(state) == [f"module.{name}" for name in student.state_dict()]
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name])
