"""Which cases choose the best method, and which prove the choice: never the same.

Where imagesTs has labels, these prove it and folds of the labelled cases choose; else half of the
folds choose, while the others prove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semi_nnunet.runs.folders import Folders, patients_of
from semi_nnunet.runs.folds import number_of_folds

MOST_FOLDS_TO_CHOOSE = 3
LEAST_PATIENTS = 6  # who choose or prove: below, Wilcoxon's test finds nothing even if all agree


@dataclass(frozen=True)
class Cases:
    """The cases of a data set that can choose and prove.

    Args:
        folds: how many folds of the labelled cases there are; 0: a single case.
        labelled: how many cases are.
        patients: who are labelled.
        test_cases: of imagesTs.
        test_patients: whose they are.
        has_test_labels: whether these can prove the choice.
    """

    folds: int
    labelled: int
    patients: int
    test_cases: int
    test_patients: int
    has_test_labels: bool

    @classmethod
    def of(cls, folders: Folders) -> Cases:
        """Count those of a data set that is preprocessed."""
        labelled, tests = folders.labelled_cases(), folders.test_cases()
        patient_of = patients_of(folders)
        return cls(
            folds=number_of_folds(folders),
            labelled=len(labelled),
            patients=len({*map(patient_of, labelled)}),
            test_cases=len(tests),
            test_patients=len({*map(patient_of, tests)}),
            has_test_labels=folders.test_labels is not None,
        )

    @property
    def choosing(self) -> tuple[str, ...]:
        """The folds whose validation cases choose the best method; none where they are too few."""
        count = self.folds if self.has_test_labels else self.folds // 2
        chosen = tuple(map(str, range(min(count, MOST_FOLDS_TO_CHOOSE))))
        return chosen if self.validated_by(chosen) >= LEAST_PATIENTS else ()

    @property
    def proving(self) -> tuple[str, ...]:
        """The folds whose validation cases prove it; none where test cases do."""
        if self.has_test_labels:
            return ()
        return tuple(map(str, range(len(self.choosing), self.folds)))

    @property
    def proving_patients(self) -> int:
        """How many patients prove it, about."""
        return self.test_patients if self.has_test_labels else self.validated_by(self.proving)

    def validated_by(self, folds: Sequence[str]) -> int:
        """How many patients these folds validate, about."""
        return self.patients * len(folds) // max(1, self.folds)
