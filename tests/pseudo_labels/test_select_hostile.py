"""semi_nnunet select on images with hostile names: its page shows them as text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.util.files import read_csv, read_json
from tests.report.parsed_page import Elements

PLAIN = ("one", "two", "three", "four")
HOSTILE = (
    "<script>alert(1)<",  # no file's name has a slash
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "R&D &lt;b&gt; {{ 7*7 }}",
)


@pytest.fixture
def select_of(pool, prepared_dataset, tmp_path, monkeypatch):
    """The page and the table of the verb, typed for a data set whose images have such names."""
    made = prepared_dataset("labels", 1)

    def run(place: str, names: tuple[str, ...]) -> tuple[Elements, set[str], list[str]]:
        folder = tmp_path / place
        for kind in ("raw", "preprocessed"):
            monkeypatch.setenv(f"nnUNet_{kind}", str(folder / kind))
            shutil.copytree(getattr(made, kind), folder / kind / made.raw.name)
        images = folder / "raw" / made.raw.name / "imagesUn"
        for path, name in zip(sorted(images.iterdir()), names, strict=True):
            path.rename(images / f"{name}_0000.nii.gz")
        monkeypatch.chdir(folder)
        words = ["-d", made.raw.name, "-m", pool.names[0], "--device", "cpu", "--keep", "2"]
        assert main(["select", *words]) == 0
        page = Path("selection.html").read_text(encoding="utf-8")
        listed = {row["case"] for row in read_csv("selection.csv")[1]}
        chosen = read_json(folder / "preprocessed" / made.raw.name / "semi_selected.json")["cases"]
        return Elements(page), listed, chosen

    return run


def test_a_hostile_name_of_an_image_is_text_on_the_page_that_the_verb_writes(select_of):
    plain, listed, _ = select_of("plain", PLAIN)
    assert listed == set(PLAIN)
    page, listed, chosen = select_of("hostile", HOSTILE)
    assert listed == set(HOSTILE) and len(chosen) == 2 and set(chosen) < listed
    assert page.found == plain.found
    assert programs_of(page) == programs_of(plain)
    assert all(name in page.text for name in HOSTILE)


def programs_of(page: Elements) -> list[str]:
    """Its scripts but for the pictures, which are data without an angle bracket."""
    data = [script for script in page.scripts if script.lstrip().startswith("[{")]
    assert data and all(json.loads(script) and "<" not in script for script in data)
    return [script for script in page.scripts if script not in data]
