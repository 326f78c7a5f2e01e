"""The reference of all options, from the comments in ``conf/``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GROUPS = (
    "task",
    "data",
    "victim",
    "defence",
    "threat_model",
    "deployment",
    "metric",
    "target",
    "goal",
    "attack",
    "eot",
    "filter",
    "selection",
    "tracking",
    "experiment",
)


@dataclass(frozen=True)
class Documented:
    """One key of a yaml file: dotted path, value as written, and the comment above it."""

    path: str
    value: str
    comment: str


def read_comments(file: Path) -> tuple[str, list[Documented]]:
    """The description at the top of a yaml file, and its keys with their comments.

    The description is the first block of comments that a blank line ends; the ``hydra`` and
    ``defaults`` sections are left out.
    """
    head = ""
    keys: list[Documented] = []
    block: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            if not text.startswith("# @package"):
                block.append(text.removeprefix("#").strip())
            continue
        if not text:
            if not head and block and not keys:
                head = " ".join(block)
            block = []
            continue
        match = re.match(r"(\s*)([\w]+):\s*(.*)$", line)
        if match is None:
            block = []
            continue
        indent, key, value = len(match[1]), match[2], match[3]
        parents = [(i, k) for i, k in parents if i < indent]
        path = ".".join([*(k for _, k in parents), key])
        parents.append((indent, key))
        if path.partition(".")[0] not in ("hydra", "defaults") and (value or block):
            keys.append(Documented(path, value, " ".join(block)))
        block = []
    return head, keys


def _table(keys: Sequence[Documented], prefix: str = "") -> list[str]:
    # Keys without a comment are not for users: the name, the class, what goes with them.
    rows = [k for k in keys if k.value and k.comment]
    if not rows:
        return []
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key in rows:
        meaning = key.comment.replace("|", "\\|")
        lines.append(f"| `{prefix}{key.path}` | `{key.value}` | {meaning} |")
    return [*lines, ""]


def reference(root: Path) -> str:
    """Markdown reference of all groups, options and keys, from the comments in ``conf/``."""
    head, keys = read_comments(root / "config.yaml")
    defaults = dict(
        re.findall(r"^  - (\w+): (\w+)$", (root / "config.yaml").read_text(encoding="utf-8"), re.M)
    )
    lines = [
        "# Configuration reference",
        "",
        "Written by `python -m ecgadv.config --docs` from the comments in `conf/`; do not edit.",
        "",
        "`python run.py [-m] [group=option …] [key=value …]`; `python run.py --cfg job` shows the",
        "configuration that a command line leads to.",
        "",
        "## Common keys",
        "",
        head,
        "",
        *_table(keys),
    ]
    for group in GROUPS:
        default = defaults.get(group, "null")
        lines += [f"## Group `{group}`", "", f"Default: `{group}={default}`.", ""]
        files = sorted((root / group).glob("*.yaml"), key=lambda f: (f.stem != default, f.stem))
        for file in files:
            head, keys = read_comments(file)
            is_global = file.read_text(encoding="utf-8").startswith("# @package _global_")
            lines += [f"### `{group}={file.stem}`", "", head, ""]
            shown = [k for k in keys if not (is_global and k.path == group)]
            lines += _table(shown, "" if is_global else f"{group}.")
    lines += [
        "## Launchers of a sweep",
        "",
        "`-m hydra/launcher=NAME` says what starts the jobs; the default is one after the other.",
        "Each needs its extra: `joblib`, `slurm`, `ray`. More in [sweeps.md](sweeps.md).",
        "",
    ]
    for file in sorted((root / "hydra" / "launcher").glob("*.yaml")):
        head, keys = read_comments(file)
        lines += [f"### `hydra/launcher={file.stem}`", "", head, ""]
        lines += _table(keys, "hydra.launcher.")
    return "\n".join(lines).rstrip() + "\n"
