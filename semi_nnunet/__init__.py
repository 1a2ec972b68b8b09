"""Semi-supervised nnU-Net v2: put unlabelled images into ``imagesUn``, then train as usual.

Every command ``semi_nnunet VERB`` is also a function, imported when it is first used::

    import semi_nnunet

    semi_nnunet.preprocess("42", ["2d"])
    semi_nnunet.plan("42", settings={"epochs": 300})
    fold = semi_nnunet.train("42", "2d", "0", "SemiUnifiedTrainer")
    semi_nnunet.predict(fold, "images", "predictions")
    semi_nnunet.evaluate("predictions", "references")

Mistakes in the arguments raise :class:`~semi_nnunet.util.errors.UserError`. The functions log what
the commands show: :func:`semi_nnunet.util.messages.show_messages` prints it.
"""

from types import FunctionType
from typing import Any

import lazy_loader

__version__ = "0.3.0"

# The names are listed once, in __init__.pyi.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Return a name of the front door; the arguments of functions are checked."""
    loaded = _load(name)
    if isinstance(loaded, FunctionType):
        from semi_nnunet.cli.front_door import check_calls

        loaded = check_calls(loaded)
        globals()[name] = loaded
    return loaded
