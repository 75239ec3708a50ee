"""Write the tables and pages of docs/ that registries and options give; tests/test_docs.py compares them."""

from pathlib import Path

from rlmix.config import Config
from rlmix.experiments.families import markdown_rows
from rlmix.experiments.help import options_page

DOCS = Path(__file__).parents[1] / "docs"
TABLES = {"methods": ("methods",), "rewards": ("rewards", "actions", "credits")}


def main() -> None:
    """Write them all."""
    (DOCS / "options.md").write_text(options_page(Config))
    for page, families in TABLES.items():
        text = (DOCS / f"{page}.md").read_text()
        for family in families:
            before, begin, rest = text.partition(f"<!-- rlmix list {family} --markdown -->\n")
            if not begin:
                raise SystemExit(f"docs/{page}.md must have a table of {family}, and has none")
            _, end, after = rest.partition("\n<!-- end -->")
            text = before + begin + "\n".join(markdown_rows(family)) + end + after
        (DOCS / f"{page}.md").write_text(text)


if __name__ == "__main__":
    main()
