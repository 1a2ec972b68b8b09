"""Environment variables are restored, also after an error."""

from __future__ import annotations

import os

import pytest

from semi_nnunet.util.environment import variable


@pytest.mark.parametrize("previous", [None, "old"])
@pytest.mark.parametrize("inside", [None, "new"])
def test_a_variable_is_restored_after_an_error(
    previous: str | None, inside: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEMI_TEST", raising=False)
    if previous is not None:
        monkeypatch.setenv("SEMI_TEST", previous)
    with pytest.raises(KeyError), variable("SEMI_TEST", inside):
        assert os.environ.get("SEMI_TEST") == inside
        raise KeyError
    assert os.environ.get("SEMI_TEST") == previous
