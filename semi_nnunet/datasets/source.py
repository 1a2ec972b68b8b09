"""Find the files of a downloaded data set, and report all missing and unexpected ones at once."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from semi_nnunet.util.errors import Problem, UserError, raise_if_any

Files = dict[str, Path]
SYSTEM_FILES = ("desktop.ini", "Thumbs.db")
DOWNLOAD = "complete the download"


class DownloadFolder:
    """The folder of a downloaded data set.

    Args:
        root: the folder.
        title: the name of the data set, for error messages.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root: Path, title: str):
        self.root, self.title = Path(root), title
        self.problems: list[Problem] = []
        if not self.root.is_dir():
            raise UserError(f"{root} is no folder", fix=f"give the folder of {title}")

    def find(self, endings: Sequence[str], **patterns: str) -> dict[str, Files]:
        """Sort the files with these endings, in any folder, by their kind.

        Hidden files and files with other endings (papers, tables) are ignored.

        Args:
            endings: for example ".nii.gz"; a file that fits no pattern is a problem.
            patterns: kind -> regular expression of the end of the path; the group "id" names the
                case. Files of a pattern without a group are ignored.

        Returns:
            kind -> {case: file}, each sorted by case.
        """
        compiled = {kind: re.compile(rf"(?:.*/)?{text}") for kind, text in patterns.items()}
        exact, lower = tuple(endings), tuple(ending.lower() for ending in endings)
        by_kind: dict[str, Files] = {kind: {} for kind in patterns}
        for path in self.walk():
            name = path.relative_to(self.root).as_posix()
            if not name.endswith(exact):
                if name.lower().endswith(lower):
                    what = f"must end with {' or '.join(endings)}, in small letters"
                    self.add_problem(name, what, "rename it")
                continue
            matches = ((kind, pattern.fullmatch(name)) for kind, pattern in compiled.items())
            kind, match = next(((k, m) for k, m in matches if m), ("", None))
            if match is None:
                what = f"does not belong to {self.title}"
                self.add_problem(name, what, "move it away, or correct its name")
            elif "id" in match.groupdict():
                self._add(by_kind[kind], match["id"], path)
        return {kind: dict(sorted(files.items())) for kind, files in by_kind.items()}

    def walk(self) -> Iterator[Path]:
        """Yield all files; follow links to folders that are neither visited nor parents."""
        seen, waiting = set(self.root.resolve().parents), deque([self.root])
        while waiting:
            for folder, folders, names in os.walk(waiting.popleft()):
                if (real := Path(folder).resolve()) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
                paths = [Path(folder, name) for name in folders]
                waiting.extend(path for path in paths if path.is_symlink())
                for name in sorted(names):
                    if not name.startswith(".") and name not in SYSTEM_FILES:
                        yield Path(folder, name)

    def _add(self, files: Files, case: str, path: Path) -> None:
        if case in files:
            what = f"is a second file of {case}, next to {self.relative_name(files[case])}"
            self.add_problem(self.relative_name(path), what, "move one of them away")
        files.setdefault(case, path)

    def relative_name(self, path: Path) -> str:
        """Return the path relative to the folder."""
        return path.relative_to(self.root).as_posix()

    def add_problem(self, where: str, what: str, fix: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(where, what, fix))

    def require(self, cases: Collection[str], files: Mapping[str, Path], what: str) -> None:
        """Add a problem for every case without a file; ``what`` names it, with {} for the case."""
        for case in cases:
            if case not in files:
                self.add_problem(what.format(case), "the file is missing", DOWNLOAD)

    def require_pairs(self, images: Files, labels: Files, image_name: str, label_name: str) -> None:
        """Add a problem for every image without a label, and every label without an image."""
        self.require(images, labels, label_name)
        self.require(labels, images, image_name)

    def require_number(self, count: int, expected: int, what: str, incomplete: bool) -> None:
        """Add a problem for a wrong number of files, unless the data set may be incomplete."""
        if count == 0 or (count != expected and not incomplete):
            fix = f"{DOWNLOAD}, or convert the existing files with --incomplete"
            fix = fix if count else DOWNLOAD
            self.add_problem(f"{self.title}: {what}", f"there must be {expected}, got {count}", fix)

    def raise_problems(self) -> None:
        """Raise a UserError that lists all problems, if there are any."""
        hint = "semi_nnunet convert NAME --help shows the expected files"
        raise_if_any(f"{self.root} is not {self.title} as published; {hint}:", self.problems)


def shuffle_names(names: Iterable[str], seed: int) -> list[str]:
    """Return names in a random order that depends only on the names and the seed.

    >>> shuffle_names(["a", "b", "c"], seed=0)
    ['c', 'a', 'b']
    """
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(names))]


def require_between(option: str, number: int, most: int) -> None:
    """Raise a UserError if a number of cases is not between 1 and ``most``.

    Args:
        option: that sets the number; text after a colon is a comment.
        number: of cases.
        most: the largest possible number.
    """
    if not 1 <= number <= most:
        fix = f"{'raise' if number < 1 else 'lower'} {option.partition(':')[0]}"
        fix = fix if most > 0 else DOWNLOAD
        raise UserError(f"{option} must be between 1 and {most}, got {number}", fix=fix)


def draw_test_cases(names: Collection[str], number: int, seed: int, option: str) -> set[str]:
    """Draw test cases.

    Raises:
        UserError: fewer than one, or all; ``option`` sets the number.
    """
    require_between(option, number, len(names) - 1)
    return set(shuffle_names(names, seed)[:number])


def draw_test_percent(names: Collection[str], percent: int, seed: int, what: str) -> set[str]:
    """Draw --test-percent of the cases as test cases; ``what`` names them in the error message."""
    return draw_test_cases(
        names, round(len(names) * percent / 100), seed, f"--test-percent: the {what}"
    )
