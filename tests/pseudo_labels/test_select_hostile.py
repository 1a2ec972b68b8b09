"""The page of semi_nnunet select shows hostile image names as plain text."""

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
    phantom = prepared_dataset("labels", 1)

    def run(folder_name: str, names: tuple[str, ...]) -> tuple[Elements, set[str], list[str]]:
        folder = tmp_path / folder_name
        for root in ("raw", "preprocessed"):
            monkeypatch.setenv(f"nnUNet_{root}", str(folder / root))
            shutil.copytree(getattr(phantom, root), folder / root / phantom.raw.name)
        images = folder / "raw" / phantom.raw.name / "imagesUn"
        for path, name in zip(sorted(images.iterdir()), names, strict=True):
            path.rename(images / f"{name}_0000.nii.gz")
        monkeypatch.chdir(folder)
        words = ["-d", phantom.raw.name, "-m", pool.names[0], "--device", "cpu", "--keep", "2"]
        assert main(["select", *words]) == 0
        page = Path("selection.html").read_text(encoding="utf-8")
        listed = {row["case"] for row in read_csv("selection.csv")[1]}
        selected = read_json(folder / "preprocessed" / phantom.raw.name / "semi_selected.json")[
            "cases"
        ]
        return Elements(page), listed, selected

    return run


def test_a_hostile_image_name_is_plain_text_on_the_page(select_of):
    plain, listed, _ = select_of("plain", PLAIN)
    assert listed == set(PLAIN)
    page, listed, selected = select_of("hostile", HOSTILE)
    assert listed == set(HOSTILE) and len(selected) == 2 and set(selected) < listed
    assert page.found == plain.found
    assert list_programs(page) == list_programs(plain)
    assert all(name in page.text for name in HOSTILE)


def list_programs(page: Elements) -> list[str]:
    """Its scripts but for the pictures, which are data without an angle bracket."""
    data = [script for script in page.scripts if script.lstrip().startswith("[{")]
    assert data and all(json.loads(script) and "<" not in script for script in data)
    return [script for script in page.scripts if script not in data]
