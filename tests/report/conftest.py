"""A tree of results and its page, made once in a session; do not write into them."""

from __future__ import annotations

import pytest

from semi_nnunet.cli.main import main
from tests.report.parsed_page import Page
from tests.report.results_tree import Tree, whole_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Tree:
    return whole_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def html(tree) -> str:
    out = tree.root / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        tree.set_paths(patch)
        assert main(["report", "-d", "7", "-o", str(out)]) == 0
    return out.read_text()


@pytest.fixture
def page(html) -> Page:
    return Page(html)
