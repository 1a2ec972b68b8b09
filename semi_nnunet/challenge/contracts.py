"""How challenges call a submission: folders, device, limits, as data.

FLARE calls a container once for each case, with the image in one folder and an empty folder for
its segmentation, and has a GPU in 2022 and none in the laptop task of 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

from semi_nnunet.util.errors import UserError

WORKSPACE = "/workspace"
INPUTS, OUTPUTS = "inputs", "outputs"  # below the workspace
SHELL_CALL = '/bin/bash -c "sh predict.sh"'


@dataclass(frozen=True)
class Contract:
    """What organisers do with a submission.

    Args:
        name: of the challenge.
        device: "cuda" where a GPU is given, else "cpu".
        options: of ``docker container run``.
        call: what runs in the container; empty: what its image says.
        limit: seconds for a case; None: the rules name none that is known here.
        about: a sentence for people.
    """

    name: str
    device: str
    options: str
    call: str
    limit: float | None
    about: str

    def line(self, image: str, inputs: str = "$PWD/inputs", outputs: str = "$PWD/outputs") -> str:
        """The line that organisers type.

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
    one.name: one
    for one in (
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


def contract_of(name: str) -> Contract:
    """The contract of a challenge.

    Raises:
        UserError: it is not known.
    """
    if name not in CONTRACTS:
        raise UserError(
            f"--contract must be one of {', '.join(CONTRACTS)}, got {name}",
            fix="choose generic, which any challenge can call that gives a folder and takes one",
        )
    return CONTRACTS[name]
