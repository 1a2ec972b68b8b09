"""Which cases choose the best method, and which test the choice: never the same.

Labelled cases of imagesTs test the choice, and folds of the labelled cases choose. Without such
cases, half of the folds choose, and the others test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.folds import make_folds
from semi_nnunet.runs.folders import Folders, load_patient_finder
from semi_nnunet.runs.folds import count_dataset_folds

MOST_FOLDS_TO_CHOOSE = 3
LEAST_PATIENTS = 6  # below, Wilcoxon's test finds nothing even if all patients agree


@dataclass(frozen=True)
class CaseCounts:
    """The numbers of cases and patients that can choose a method and test the choice.

    >>> counts = CaseCounts(5, labelled=20, patients=20, test_cases=0, test_patients=0,
    ...                     has_test_labels=False)
    >>> counts.choosing_folds, counts.checking_folds
    (('0', '1'), ('2', '3', '4'))

    Args:
        folds: of the labelled cases; 0 for a single case.
        labelled: labelled cases.
        patients: labelled patients.
        test_cases: cases of imagesTs.
        test_patients: patients of imagesTs.
        has_test_labels: whether imagesTs can test the choice.
    """

    folds: int
    labelled: int
    patients: int
    test_cases: int
    test_patients: int
    has_test_labels: bool

    @classmethod
    def of(cls, folders: Folders) -> CaseCounts:
        """Count the cases of a preprocessed data set."""
        labelled, tests = folders.labelled_cases(), folders.test_cases()
        patient_of = load_patient_finder(folders)
        return cls(
            folds=count_dataset_folds(folders),
            labelled=len(labelled),
            patients=len({*map(patient_of, labelled)}),
            test_cases=len(tests),
            test_patients=len({*map(patient_of, tests)}),
            has_test_labels=folders.test_labels is not None,
        )

    @classmethod
    def of_raw(cls, folders: Folders, raw: RawDataset) -> CaseCounts:
        """Count the cases of a data set that is not preprocessed yet."""
        patient_of = load_patient_finder(folders)
        cases = {
            subset: [case.case for case in raw.cases if case.subset == subset]
            for subset in ("labelled", "test")
        }
        return cls(
            folds=len(make_folds(cases["labelled"], patient_of)),
            labelled=len(cases["labelled"]),
            patients=len({*map(patient_of, cases["labelled"])}),
            test_cases=len(cases["test"]),
            test_patients=len({*map(patient_of, cases["test"])}),
            has_test_labels=folders.test_labels is not None,
        )

    @property
    def validated(self) -> int:
        """The validation cases of a fold; all labelled cases without folds."""
        return math.ceil(self.labelled / max(1, self.folds))

    @property
    def choosing_folds(self) -> tuple[str, ...]:
        """The folds whose validation cases choose the best method; () if they are too few."""
        count = self.folds if self.has_test_labels else self.folds // 2
        folds = tuple(map(str, range(min(count, MOST_FOLDS_TO_CHOOSE))))
        return folds if self.count_validated_patients(folds) >= LEAST_PATIENTS else ()

    @property
    def checking_folds(self) -> tuple[str, ...]:
        """The folds whose validation cases test the choice; () if test cases do."""
        if self.has_test_labels:
            return ()
        return tuple(map(str, range(len(self.choosing_folds), self.folds)))

    @property
    def checking_patients(self) -> int:
        """About how many patients test the choice."""
        if self.has_test_labels:
            return self.test_patients
        return self.count_validated_patients(self.checking_folds)

    def count_validated_patients(self, folds: Sequence[str]) -> int:
        """Return about how many patients these folds validate."""
        return self.patients * len(folds) // max(1, self.folds)
