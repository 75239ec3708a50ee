"""The documentation: what registries and options write is as they are today, and links lead somewhere."""

import re
from pathlib import Path

import pytest

import rlmix
from rlmix.config import Config
from rlmix.experiments.families import markdown_rows
from rlmix.experiments.help import options_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


@pytest.mark.parametrize(
    ("page", "family"), [("methods", "methods"), ("rewards", "rewards"), ("rewards", "actions"), ("rewards", "credits")]
)
def test_a_table_is_that_of_the_registry(page, family):
    text = (DOCS / f"{page}.md").read_text()
    begin = f"<!-- rlmix list {family} --markdown -->\n"
    assert text.split(begin)[1].split("\n<!-- end -->")[0] == "\n".join(markdown_rows(family))


def test_the_page_of_options_is_that_of_the_configuration():
    assert (DOCS / "options.md").read_text() == options_page(Config)


def anchors(page):
    """Of a page's headings, as GitHub and the site have them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_documentation_resolves(page):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        found = page.parent / target if target else page
        assert found.exists(), f"{target} of {page}"
        assert not anchor or anchor in anchors(found), f"{target}#{anchor} of {page}"


def test_the_readme_is_short_and_has_both_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if "-m pytest" in line] == [
        'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest -n auto --dist loadfile'
    ]
    assert sum("pip install -e . && .venv/bin/rlmix train --method rlmix --data digits" in line for line in lines) == 1


def test_the_reference_has_every_public_name_once():
    shown = re.findall(r"^::: rlmix\.(\w+)$", (DOCS / "reference" / "public.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(rlmix.__all__)


def test_every_page_is_in_the_site():
    nav = (DOCS / "site" / "mkdocs.yml").read_text().partition("\nnav:")[2]
    names = {page.relative_to(DOCS if DOCS in page.parents else ROOT).as_posix() for page in PAGES} - {"README.md"}
    assert set(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) == names | {"index.md"}
