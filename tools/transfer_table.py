"""Print who fools whom, as a Markdown table, from folders of ``task=evaluate`` runs.

python tools/transfer_table.py outputs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ecgadv.evaluate.transfer import transfer_matrix


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders to search for evaluations")
    found = []
    for folder in parser.parse_args().folders:
        for file in sorted(folder.rglob("summary.json")):
            summary = json.loads(file.read_text())
            if "transfer" in summary:
                found.append(summary)
    head, *rows = transfer_matrix(found)
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
