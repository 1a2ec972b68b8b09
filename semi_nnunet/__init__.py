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

import lazy_loader

__version__ = "0.3.0"

# The names are listed once, in __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
