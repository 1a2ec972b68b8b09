"""The axes that a model mirrors along are the cheapest that are good enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.deploy.mirrors import FILE, Mirrors, Tried, chosen, mirrors_of
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

TRIED = [
    Tried((), 0.890, 1.0), Tried((0,), 0.8995, 2.0), Tried((1,), 0.8991, 2.0),
    Tried((0, 1), 0.900, 4.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lose", "axes"), [(0.0, (0, 1)), (0.0006, (0,)), (0.001, (0,)), (0.02, ())]
)
def test_the_fewest_passes_within_the_loss_are_chosen_and_of_several_the_best(lose, axes) -> None:
    assert chosen(TRIED, lose).axes == axes
    assert chosen(TRIED[::-1], lose).axes == axes


def test_fewer_axes_that_are_better_are_chosen_whatever_may_be_lost() -> None:
    assert chosen([*TRIED, Tried((2,), 0.95, 2.0)], 0.0).axes == (2,)


def test_the_choice_is_kept_with_the_model(tmp_path: Path) -> None:
    assert mirrors_of(tmp_path) is None
    choice = Mirrors((0,), tuple(TRIED), ("0", "1"), 7, 0.001)
    choice.write(tmp_path)
    assert mirrors_of(tmp_path) == choice
    write_json(tmp_path / FILE, {"axes": "all"})
    with pytest.raises(UserError, match="must be what semi_nnunet tune wrote"):
        mirrors_of(tmp_path)
