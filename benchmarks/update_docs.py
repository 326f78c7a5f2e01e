"""Put the results of a benchmark into the documentation.

    python benchmarks/update_docs.py FOLDER

FOLDER is that of a finished ``task=benchmark``; ``docs/benchmarks.md`` gets its tables, and
``docs/images/benchmark.png`` its figure.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE = "![Median distance against gradients a case](images/benchmark.png)"


def replaced(page: str, results: str) -> str:
    """The page with other results between its two marks.

    Raises:
        ValueError: the page has not exactly one place for them.
    """
    marks = r"(<!-- results: begin -->\n).*?(<!-- results: end -->)"
    text, count = re.subn(
        marks, lambda m: f"{m[1]}{results.strip()}\n\n{PICTURE}\n{m[2]}", page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError("docs/benchmarks.md: no single place for results")
    return text


def main(argv: list[str]) -> int:
    """Copy tables and figure of one benchmark."""
    if len(argv) != 1 or not (Path(argv[0]) / "benchmark.md").is_file():
        print(__doc__, file=sys.stderr)
        return 2
    folder, page = Path(argv[0]), DOCS / "benchmarks.md"
    page.write_text(replaced(page.read_text(), (folder / "benchmark.md").read_text()))
    shutil.copyfile(folder / "figures" / "benchmark.png", DOCS / "images" / "benchmark.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
