"""The settings classes of the trainers, without an import of the trainers."""

from __future__ import annotations

from semi_nnunet.discovery.listing import user_trainers
from semi_nnunet.discovery.trainers.semi_nnunet_trainers import TRAINERS
from semi_nnunet.settings import methods
from semi_nnunet.settings.common import SemiSettings


def settings_classes() -> dict[str, type[SemiSettings]]:
    """Return name -> settings class of every trainer of this package, and of the user's.

    A method whose settings are not in :mod:`semi_nnunet.settings.methods` is imported.

    >>> settings_classes()["SemiMeanTeacherTrainer"].__name__
    'MeanTeacherSettings'
    """
    classes = dict[str, type[SemiSettings]]()
    for name, facts in TRAINERS.items():
        if facts.settings is not None:
            classes[name] = getattr(methods, facts.settings)
        else:
            from semi_nnunet.discovery.classes import trainer_classes  # takes seconds

            classes[name] = trainer_classes()[name].settings_class
    users = user_trainers().items()
    return classes | {name: trainer.settings_class for name, (_, trainer) in users}
