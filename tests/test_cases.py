"""Small inputs that once ended in wrong answers, as scripts in the folder ``$ECGADV_CASES``.

``cases/table.yaml`` says how each is run and what it must print.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from helpers import REPO, environment

FOLDER = os.environ.get("ECGADV_CASES", "")
TABLE = yaml.safe_load((Path(__file__).parent / "cases" / "table.yaml").read_text("utf-8"))
HAVE = {
    "root": lambda: hasattr(os, "geteuid") and os.geteuid() == 0,
    "setpriv": lambda: shutil.which("setpriv") is not None,
}
"""What an entry may need besides the project."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="set ECGADV_CASES to the folder of the cases"),
]


def called(entry):
    variant = [*entry.get("args", ()), *entry.get("env", {}).values()]
    named = [v for v in variant if "/" not in v]
    return "-".join([entry["case"], *(named or [entry["script"][:-3]])])


def script(entry, place):
    """The entry's script with its changes, in a folder of its own."""
    text = (Path(FOLDER) / entry["case"] / entry["script"]).read_text("utf-8")
    for old, new in entry.get("replace", ()):
        assert old in text, f"the script has no {old!r}"
        text = text.replace(old, new)
    path = place / entry["script"]
    path.write_text(text + entry.get("append", ""), encoding="utf-8")
    return path


def missing(entry, text):
    """The first pattern that is not found after those before it; None where all are."""
    groups: dict[str, str] = {}
    at = 0
    for pattern in entry["has"]:
        filled = pattern
        for name, value in groups.items():
            filled = filled.replace(f"(?P={name})", re.escape(value))
        hit = re.compile(filled, re.MULTILINE).search(text, at)
        if hit is None:
            return filled
        groups |= hit.groupdict()
        at = max(hit.end() - 1, at)
    return None


@pytest.mark.parametrize("entry", TABLE, ids=called)
def test_a_case_prints_what_is_right(entry, tmp_path):
    needs = set(entry.get("needs", ()))
    lacking = [name for name in needs if not HAVE[name]()]
    text = (Path(FOLDER) / entry["case"] / entry["script"]).read_text("utf-8")
    wanted = [*entry.get("args", ()), *entry.get("env", {}).values(), text]
    lacking += [
        name
        for name in ("torch", "jax")
        if any(w == name or f"import {name}" in w for w in wanted) and find_spec(name) is None
    ]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    path = script(entry, tmp_path)
    place = tmp_path / "tmp"
    place.mkdir()
    shell = [sys.executable, "-W", "ignore"] if path.suffix == ".py" else ["bash"]
    done = subprocess.run(
        [*shell, str(path), *(a.format(tmp=tmp_path) for a in entry.get("args", ()))],
        cwd=REPO,
        env=environment(
            P=str(REPO),
            PY=sys.executable,
            ECGADV_CACHE=str(place / "cache"),
            # Where a second user takes part, both must reach the folder.
            **({} if needs else {"TMPDIR": str(place)}),
            **entry.get("env", {}),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=400,
    )
    said = done.stdout
    assert done.returncode == 0, said
    lost = missing(entry, said)
    assert lost is None, f"{lost}\n\nis not in\n\n{said}"
    for pattern in entry.get("hasnt", ()):
        found = re.search(pattern, said)
        assert found is None, f"{pattern} found: {found and found.group()!r}\n\nin\n\n{said}"


@pytest.mark.skipif(not FOLDER, reason="set ECGADV_CASES to the folder of the cases")
def test_every_script_of_the_folder_has_an_entry():
    there = {
        (p.parent.name, p.name) for p in Path(FOLDER).glob("*/*") if p.suffix in (".py", ".sh")
    }
    assert there == {(e["case"], e["script"]) for e in TABLE}
