"""The trainers that are taken without being named exist, and do what they are taken for."""

from semi_nnunet.automatic.run import CANDIDATES
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE, RECOMMENDED


def test_the_baseline_learns_from_labels_alone_and_the_recommended_one_does_not() -> None:
    kinds = our_trainers()
    assert not kinds[BASELINE].uses_unlabelled and kinds[RECOMMENDED].uses_unlabelled
    assert not kinds[RECOMMENDED].taught_by  # one command trains it
    assert CANDIDATES[0] == RECOMMENDED
