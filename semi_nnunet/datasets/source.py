"""Find the files of a downloaded data set, and report all that is missing or unexpected at once."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from semi_nnunet.util.errors import Problem, UserError

Files = dict[str, Path]
SYSTEM_FILES = ("desktop.ini", "Thumbs.db")
DOWNLOAD = "complete the download"


class Source:
    """A downloaded data set.

    Args:
        root: its folder.
        title: the name of the data set, for the error.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, root: Path, title: str):
        self.root, self.title = Path(root), title
        self.problems: list[Problem] = []
        if not self.root.is_dir():
            raise UserError(f"{root} is no folder", fix=f"give the folder of {title}")

    def find(self, endings: Sequence[str], **patterns: str) -> dict[str, Files]:
        """Sort the files with these endings, wherever they lie, by what they are.

        Hidden files are left out, and so are those with another ending (papers, tables).

        Args:
            endings: for example ".nii.gz"; a file that has one but fits no pattern is a problem.
            patterns: kind -> regular expression of the last part of the path; the group "id" names
                the case. Without a group the files are known, and not used.

        Returns:
            kind -> {case: file}, each sorted by case.
        """
        compiled = {kind: re.compile(rf"(?:.*/)?{text}") for kind, text in patterns.items()}
        found: dict[str, Files] = {kind: {} for kind in patterns}
        for path in self._walk():
            name = path.relative_to(self.root).as_posix()
            if not name.endswith(tuple(endings)):
                continue
            matches = ((kind, pattern.fullmatch(name)) for kind, pattern in compiled.items())
            kind, match = next(((k, m) for k, m in matches if m), ("", None))
            if match is None:
                what = f"is no file of {self.title}"
                self.note(name, what, "move it away, or correct its name")
            elif "id" in match.groupdict():
                self._add(found[kind], match["id"], path)
        return {kind: dict(sorted(files.items())) for kind, files in found.items()}

    def _walk(self) -> Iterator[Path]:
        """All files; then those behind links to folders that no other path led to, nor leads up."""
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
            what = f"is a second file of {case}, beside {self.within(files[case])}"
            self.note(self.within(path), what, "move one of them away")
        files.setdefault(case, path)

    def within(self, path: Path) -> str:
        """The path as the user knows it: relative to the source."""
        return path.relative_to(self.root).as_posix()

    def note(self, where: str, what: str, fix: str) -> None:
        """Remember a problem."""
        self.problems.append(Problem(where, what, fix))

    def need(self, cases: Collection[str], files: Mapping[str, Path], what: str) -> None:
        """Note every case that lacks its file, which is called ``what``, with the case for {}."""
        for case in cases:
            if case not in files:
                self.note(what.format(case), "the file is absent", DOWNLOAD)

    def need_pairs(self, images: Files, labels: Files, image_name: str, label_name: str) -> None:
        """Note every image without its label, and every label without its image."""
        self.need(images, labels, label_name)
        self.need(labels, images, image_name)

    def need_number(self, found: int, wanted: int, what: str, incomplete: bool) -> None:
        """Note that files are missing (or too many), unless an incomplete data set is wanted."""
        if found == 0 or (found != wanted and not incomplete):
            fix = f"{DOWNLOAD}, or --incomplete takes what is there" if found else DOWNLOAD
            self.note(f"{self.title}: {what}", f"there must be {wanted}, found {found}", fix)

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            UserError: naming every problem.
        """
        if self.problems:
            how = "semi_nnunet convert NAME --help shows how it must be"
            raise UserError(f"{self.root} is not {self.title} as published; {how}:", self.problems)


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in a random order that depends on nothing else than themselves and the seed."""
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(names))]


def require_between(option: str, number: int, most: int) -> None:
    """Check a number of cases that ``option`` set; what follows a colon in it is said, too.

    Raises:
        UserError: it is below 1 or above ``most``.
    """
    if not 1 <= number <= most:
        fix = f"a {'larger' if number < 1 else 'smaller'} {option.partition(':')[0]}"
        fix = fix if most > 0 else DOWNLOAD
        raise UserError(f"{option} must be between 1 and {most}, got {number}", fix=f"{fix}")


def held_out(names: Collection[str], number: int, seed: int, option: str) -> set[str]:
    """A random choice of test cases.

    Raises:
        UserError: fewer than one or so many that no other is left; ``option`` set the number.
    """
    require_between(option, number, len(names) - 1)
    return set(shuffled(names, seed)[:number])


def held_out_percent(names: Collection[str], percent: int, seed: int, what: str) -> set[str]:
    """A random choice of --test-percent of the cases, which are called ``what`` in the error."""
    return held_out(names, round(len(names) * percent / 100), seed, f"--test-percent: the {what}")
