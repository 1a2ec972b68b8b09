"""Options of several converters, with their help and range."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

SLICE_SIZE = Parameter(
    help="Resize slices to so many pixels along each edge, masks by nearest neighbour.",
    validator=Number(gte=8),
)

Seed = Annotated[
    int, Parameter(help="Seed of the random choices (default: 0).", validator=Number(gte=0))
]
Symlink = Annotated[bool, Parameter(help="Link to files that need no change.")]
Incomplete = Annotated[bool, Parameter(help="Convert the existing files if some are missing.")]
Size = Annotated[int | None, SLICE_SIZE]
TestPercent = Annotated[
    int,
    Parameter(help="Percentage of test cases among the images.", validator=Number(gte=1, lte=99)),
]
