"""What is in a folder of preprocessed cases."""

from __future__ import annotations

import hashlib
from pathlib import Path

import blosc2
import numpy as np


def voxels(path: Path) -> np.ndarray:
    return blosc2.open(str(path), mode="r")[:]


def content(folder: Path) -> dict[str, str]:
    """File name -> digest; of an image its voxels, as its threads may order the chunks."""
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".b2nd":
            array = voxels(path)
            data = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        else:
            data = path.read_bytes()
        digests[path.name] = hashlib.sha256(data).hexdigest()
    return digests
