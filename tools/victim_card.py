"""Print the held-out scores of an included victim, as Markdown, from its card.

python tools/victim_card.py compact resnet34
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from ecgadv.evaluate.statistics import wilson
from ecgadv.victims.loading import WEIGHTS


def table(card: dict[str, Any]) -> str:
    """Confusion matrix with the F1 and the recall of every class, then the means."""
    classes, told = card["classes"], card["heldout_scores"]
    lines = ["|  | " + " | ".join(classes) + " | F1 | recall, 95 % interval |"]
    lines.append("|" + "---|" * (len(classes) + 3))
    for letter, row in zip(classes, told["confusion"], strict=True):
        right, total = row[classes.index(letter)], sum(row)
        low, high = wilson(right, total)
        counts = " | ".join(str(count) for count in row)
        lines.append(
            f"| **{letter}** | {counts} | {told['f1'][letter]:.3f} | {right}/{total}, "
            f"{100 * low:.1f} to {100 * high:.1f} % |"
        )
    right = sum(row[i] for i, row in enumerate(told["confusion"]))
    low, high = wilson(right, told["n"])
    lines += [
        "",
        f"N/A/O mean F1 {told['f1_nao_mean']:.3f} (the challenge's measure), accuracy "
        f"{right:,}/{told['n']:,} = {told['accuracy']:.3f} [{low:.3f}, {high:.3f}].",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("victims", nargs="+")
    for name in parser.parse_args().victims:
        print(f"{name}\n\n{table(json.loads((WEIGHTS / f'{name}.json').read_text()))}\n")


if __name__ == "__main__":
    main()
