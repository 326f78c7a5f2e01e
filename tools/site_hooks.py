"""What the site needs beside the pages: files of the repository's root, and the README's results.

The pages read well on a code host and as a site. Links that leave ``docs/`` lead to copies of the
files, and the table of results is taken from the README, so that it is written once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ("CHANGELOG.md",)
LEAVING = re.compile(r"(?<=\]\()\.\./([^)#\s]+)(?=[)#])")
RESULTS = re.compile(r"^\[The table of results\]\(\.\./README\.md#results\)\.?$", re.M)
ROLE = re.compile(r":(?:func|class|data|meth|mod|attr|obj|exc):(?=<code>|`)")


def on_files(files: Any, config: Any) -> Any:
    """Add the files of the root that pages link to."""
    from mkdocs.structure.files import File

    pages = (ROOT / "docs").glob("*.md")
    named = {name for page in pages for name in LEAVING.findall(page.read_text(encoding="utf-8"))}
    for name in sorted({*ALWAYS, *named} - {"README.md"}):
        if (ROOT / name).is_file():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links that leave the folder to the copies, and insert the table of results."""
    if RESULTS.search(markdown):
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        part = readme[readme.index("## Results\n") + len("## Results\n") :]
        part = part[: re.search(r"^## ", part, re.M).start()].replace("](docs/", "](")  # type: ignore[union-attr]
        markdown = RESULTS.sub(lambda _: part, markdown)
    return LEAVING.sub(r"\1", markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Docstrings name functions in Sphinx's way; here the name is enough."""
    return ROLE.sub("", html)
