"""The default trainers exist and suit their purpose."""

from semi_nnunet.automatic.run import CANDIDATES
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE, RECOMMENDED


def test_the_baseline_ignores_unlabelled_images_and_the_recommended_trainer_uses_them() -> None:
    facts = our_trainers()
    assert not facts[BASELINE].uses_unlabelled and facts[RECOMMENDED].uses_unlabelled
    assert not facts[RECOMMENDED].taught_by  # one command trains it
    assert CANDIDATES[0] == RECOMMENDED
