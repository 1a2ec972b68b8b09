"""Environment variables are as before after the block, also when it fails."""

from __future__ import annotations

import os

import pytest

from semi_nnunet.util.environment import variable


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("inside", [None, "new"])
def test_a_variable_comes_back(
    before: str | None, inside: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEMI_TEST", raising=False)
    if before is not None:
        monkeypatch.setenv("SEMI_TEST", before)
    with pytest.raises(KeyError), variable("SEMI_TEST", inside):
        assert os.environ.get("SEMI_TEST") == inside
        raise KeyError
    assert os.environ.get("SEMI_TEST") == before
