"""Hooks of mkdocs: version, list of results, weights of the search, the notebook as a page."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

NOTEBOOK, PAGE = "tutorial.ipynb", "tutorial.md"
RESULTS, FIRST = "results", "index.md"
LAST = ("phantom.md", "pseudo_labels.md", "cost.md", "journal.md")  # of the pages of results
ROLE = re.compile(r":(?:mod|class|func|meth|attr|data):\s*<code>~?([^<]*)</code>")
TEST_LINK = re.compile(r"\[([^]]+)\]\(\.\./tests/?[^)]*\)")
VERSION = re.compile(r'^__version__ = "(.+)"', re.MULTILINE)
FOR_USERS, FOR_DEVELOPERS = 2.0, 0.3  # weights in the search
DEVELOPER_PAGES = ("results/", "architecture", "adding_", "python")


def on_config(config: Any) -> Any:
    """Show the version, and list the pages of results: the summary, the data sets, the journal."""
    package = Path(config.config_file_path).parent / "semi_nnunet" / "__init__.py"
    version = VERSION.search(package.read_text(encoding="utf-8"))
    if version is None:
        raise PluginError(f"{package} has no __version__")
    config.site_name = f"{config.site_name} {version[1]}"
    folder = Path(config.docs_dir) / RESULTS
    names = sorted(path.name for path in folder.glob("*.md"))
    names.sort(key=lambda name: (name != FIRST, LAST.index(name) + 1 if name in LAST else 0))
    for section in sections(config.nav):
        if "Results" in section:
            section["Results"] = [f"{RESULTS}/{name}" for name in names]
    return config


def sections(entries: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield all entries of the navigation that have a title."""
    for entry in entries:
        if isinstance(entry, dict):
            yield entry
            for inner in entry.values():
                yield from sections(inner) if isinstance(inner, list) else ()


def on_files(files: Files, config: Any) -> Files:
    """Add the page and its pictures."""
    notebook = json.loads((Path(config.docs_dir) / NOTEBOOK).read_text(encoding="utf-8"))
    pictures: dict[str, bytes] = {}
    text = "\n\n".join(_blocks(notebook, pictures))
    files.append(File.generated(config, PAGE, content=text))
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link to the page of the notebook, and let the search rank guides above measurements.

    Tests are not part of the site, so that only their names stay.
    """
    is_for_developers = page.file.src_uri.startswith(DEVELOPER_PAGES)
    page.meta["search"] = {"boost": FOR_DEVELOPERS if is_for_developers else FOR_USERS}
    markdown = TEST_LINK.sub(r"\1", markdown)
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"{NOTEBOOK})", f"{PAGE})")


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name objects by roles of Sphinx, and begin code by two colons."""
    return ROLE.sub(lambda match: f"<code>{match[1]}</code>", html).replace("::</p>", ":</p>")


def _blocks(notebook: dict[str, Any], pictures: dict[str, bytes]) -> Iterator[str]:
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"figures/tutorial_{number}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                yield f"![output]({name})"
            elif "text/markdown" in data:
                yield re.sub(r"^## ", "### ", "".join(data["text/markdown"]), flags=re.MULTILINE)
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                yield f"```text\n{text}\n```"
    yield f"This page is the [notebook]({NOTEBOOK}), which you can download and run."
