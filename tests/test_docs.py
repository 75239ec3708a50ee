"""The tables and pages of the documentation that registries and options write: as they are today."""

from pathlib import Path

import pytest

from rlmix.config import Config
from rlmix.experiments.families import markdown_rows
from rlmix.experiments.help import options_page

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(("page", "family"), [("methods", "methods"), ("rewards", "rewards"), ("rewards", "credits")])
def test_a_table_is_that_of_the_registry(page, family):
    text = (DOCS / f"{page}.md").read_text()
    begin = f"<!-- rlmix list {family} --markdown -->\n"
    assert text.split(begin)[1].split("\n<!-- end -->")[0] == "\n".join(markdown_rows(family))


def test_the_page_of_options_is_that_of_the_configuration():
    assert (DOCS / "options.md").read_text() == options_page(Config)
