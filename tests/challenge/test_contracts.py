"""The line that organisers type equals the challenge's."""

from __future__ import annotations

import shlex

import pytest

from semi_nnunet.challenge.contracts import CONTRACTS, find_contract
from semi_nnunet.util.errors import UserError


def test_the_call_of_flare22_equals_that_of_its_rules():
    assert find_contract("flare22").line("name") == (
        "docker container run --shm-size=28gb -m 28G --gpus device=1 --rm "
        "-v $PWD/inputs/:/workspace/inputs/ -v $PWD/outputs/:/workspace/outputs/ "
        'name:latest /bin/bash -c "sh predict.sh"'
    )


def test_contracts_without_a_gpu_do_not_ask_docker_for_one():
    for contract in CONTRACTS.values():
        words = shlex.split(contract.line("name", "in", "out"))
        assert ("--gpus" in words) == (contract.device == "cuda")
        assert {"in/:/workspace/inputs/", "out/:/workspace/outputs/", "name:latest"} <= {*words}


def test_the_error_of_an_unknown_challenge_lists_the_known_ones():
    with pytest.raises(UserError, match="flare22, flare24, generic, got acdc"):
        find_contract("acdc")
