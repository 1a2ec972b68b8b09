"""Parsers of the report's page: tables, images, elements and text."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tables as lists of rows of (data-value, text), images, and all text."""

    def __init__(self, html: str):
        super().__init__()
        self.images: list[dict] = []
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self.text, self.group, self.cell = "", "", None
        self.feed(html)

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        if tag == "img":
            self.images.append(attributes)
        if "data-group" in attributes:
            self.group = f"{attributes['data-group']} {attributes['data-name']}"
        elif tag == "section":
            self.group = ""
        elif tag == "table":
            self.tables.setdefault(attributes.get("id", self.group), [])
            self.rows = self.tables[attributes.get("id", self.group)]
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append((attributes.get("data-value", ""), ""))
            self.cell = self.rows[-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell:
            value, text = self.cell[-1]
            self.cell[-1] = (value, text + data)


class Elements(HTMLParser):
    """Every element with the names of its attributes, the content of scripts, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.scripts: list[str] = []
        self.text, self.inside = "", ""
        self.feed(html)

    def handle_starttag(self, tag, pairs):
        self.inside = tag
        self.found.append((tag, [name for name, _ in pairs]))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        else:
            self.text += data
