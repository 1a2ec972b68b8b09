"""The ways in which challenges call a submission: folders, device and limits, as data.

FLARE calls a container once for each case, with the image in one folder and an empty folder for its
segmentation. It has a GPU in 2022 and none in the laptop task of 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

from semi_nnunet.util.errors import UserError

WORKSPACE = "/workspace"
INPUTS, OUTPUTS = "inputs", "outputs"  # below the workspace
SHELL_CALL = '/bin/bash -c "sh predict.sh"'


@dataclass(frozen=True)
class Contract:
    """The way in which organisers run a submission.

    Args:
        name: of the challenge.
        device: "cuda" if a GPU is provided, else "cpu".
        options: of ``docker container run``.
        call: command in the container; empty: that of the image.
        limit: seconds for a case; None: the rules have no limit that we know of.
        about: a sentence for people.
    """

    name: str
    device: str
    options: str
    call: str
    limit: float | None
    about: str

    def line(self, image: str, inputs: str = "$PWD/inputs", outputs: str = "$PWD/outputs") -> str:
        """Return the line that organisers type.

        Args:
            image: name of the image.
            inputs, outputs: folders outside the container.
        """
        words = [
            "docker container run", self.options, "--rm", f"-v {inputs}/:{WORKSPACE}/{INPUTS}/",
            f"-v {outputs}/:{WORKSPACE}/{OUTPUTS}/", f"{image}:latest", self.call,
        ]  # fmt: skip
        return " ".join(word for word in words if word)


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract(
            "flare22", "cuda", "--shm-size=28gb -m 28G --gpus device=1", SHELL_CALL, 60.0,
            "FLARE 2022: one case a call, a GPU, 28 GB of memory, 60 seconds",
        ),
        Contract(
            "flare24", "cpu", "--shm-size=28gb -m 28G", SHELL_CALL, None,
            "FLARE 2024, laptop task: one case a call, no GPU",
        ),
        Contract("generic", "cpu", "--network none", "", None,
                 "any number of cases a call, no GPU, no network"),
    )
}  # fmt: skip


def find_contract(name: str) -> Contract:
    """Return the contract of a challenge.

    >>> find_contract("flare22").limit
    60.0

    Raises:
        UserError: the challenge is unknown.
    """
    if name not in CONTRACTS:
        raise UserError(
            f"--contract must be one of {', '.join(CONTRACTS)}, got {name}",
            fix="choose generic, which fits challenges that give an input and an output folder",
        )
    return CONTRACTS[name]
