"""The pages that stand at the top of the repository are pages of the site too; their links, and those to them, are led there."""

import re
from pathlib import Path
from posixpath import dirname, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
"""Name in the repository: name in the site."""


def on_files(files: Files, config: Any) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the repository, as links of the site."""
    here = page.file.src_uri
    if here in PAGES.values():
        return re.sub(r"(\]\()docs/", r"\1", markdown)
    for name, target in PAGES.items():
        up = "../" * (here.count("/") + 1) + name
        markdown = re.sub(rf"(\]\(){re.escape(up)}(?=[)#])", rf"\1{relpath(target, dirname(here) or '.')}", markdown)
    return markdown
