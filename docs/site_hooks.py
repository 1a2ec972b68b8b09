"""Hooks of mkdocs: the list of results, and the tutorial's notebook as a page with its outputs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

NOTEBOOK, PAGE = "tutorial.ipynb", "tutorial.md"
RESULTS, FIRST = "results", "index.md"
LAST = ("phantom.md", "pseudo_labels.md", "cost.md", "journal.md")  # of the pages of results
ROLE = re.compile(r":(?:mod|class|func|meth|attr|data):\s*<code>~?([^<]*)</code>")


def on_config(config: Any) -> Any:
    """The pages of results: the summary, the data sets, the journal."""
    folder = Path(config.docs_dir) / RESULTS
    names = sorted(path.name for path in folder.glob("*.md"))
    names.sort(key=lambda name: (name != FIRST, LAST.index(name) + 1 if name in LAST else 0))
    for entry in config.nav:
        if "Results" in entry:
            entry["Results"] = [f"{RESULTS}/{name}" for name in names]
    return config


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
    """Pages of the site link to the page, those of the repository to the notebook."""
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
