"""The package's messages on the screen."""

from __future__ import annotations

import logging

import pytest

from semi_nnunet.util.messages import ScreenHandler


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_names_of_files_cannot_control_the_terminal(
    level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "wrote \x1b[31mred\x07.nii.gz\n\tGörüntü"
    ScreenHandler().emit(logging.LogRecord("semi_nnunet.x", level, "", 0, message, None, None))
    out, err = capsys.readouterr()
    assert (err if level == logging.WARNING else out) == (
        "wrote \\x1b[31mred\\x07.nii.gz\n\tGörüntü\n"
    )
