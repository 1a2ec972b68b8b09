"""Pictures are drawn in the first and the last epoch, and rarely in between."""

from __future__ import annotations

import pytest

from semi_nnunet.training.rate_limit import RateLimited


@pytest.mark.parametrize(("drawing", "epoch"), [(6.5, 60.0), (0.5, 1.0), (2.0, 500.0)])
def test_drawing_takes_at_most_its_share_and_the_last_epoch_is_drawn(
    drawing: float, epoch: float
) -> None:
    now, epochs, drawn = [0.0], [0], []

    def draw(folder: str) -> None:
        now[0] += drawing
        drawn.append((folder, epochs[0]))

    limited = RateLimited(draw, share=0.01, clock=lambda: now[0])
    while epochs[0] < 1000:
        epochs[0], now[0] = epochs[0] + 1, now[0] + epoch
        limited("fold_0")
    assert drawn[0] == ("fold_0", 1)
    pauses = 100 * drawing / epoch
    assert len(drawn) == pytest.approx(1000 / max(1.0, pauses), rel=0.1, abs=2)
    limited.flush()
    limited.flush()
    assert [number for _, number in drawn].count(1000) == 1


def test_a_drawing_that_fails_is_tried_again() -> None:
    def draw(folder: str) -> None:
        raise OSError("no space")

    limited = RateLimited(draw)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            limited("fold_0")
