"""The wheel holds what an installation needs, and the repository nothing of anybody's machine."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import ecgadv

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEEP_WEIGHTS = "ecgadv/victims/weights/resnet34.npz"
"""The one large file that the project brings."""
LOCK = (REPO / "requirements.lock").read_text(encoding="utf-8")


def tracked():
    """Files of the repository; skips outside a checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [REPO / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked():
    """Distribution -> version, as pinned."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", LOCK, re.M)
    return {normal(name): version for name, version in pins}


def test_the_version_is_told_once():
    assert PROJECT["version"] == ecgadv.__version__
    changes = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(ecgadv.__version__)}\b", changes, re.M)
    assert f"version: {ecgadv.__version__}\n" in (REPO / "CITATION.cff").read_text(encoding="utf-8")


def requirements():
    extras = PROJECT["optional-dependencies"]
    return [
        *PROJECT["dependencies"],
        *extras["test"],
        *extras["dev"],
        *extras["jax"],
        *extras["docs"],
    ]


@pytest.mark.parametrize("requirement", requirements())
def test_the_lock_pins_what_the_project_needs(requirement):
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    assert normal(wanted.name) in locked()
    assert wanted.specifier.contains(locked()[normal(wanted.name)])


def test_the_lock_agrees_with_itself():
    """Every installed distribution that it pins can live with the other pins."""
    from packaging.requirements import Requirement

    pins, clashes, looked = locked(), [], 0
    for name in pins:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if metadata.version(name) != pins[name]:
            continue
        looked += 1
        for text in needs:
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            pinned = pins.get(normal(need.name))
            if pinned is not None and not need.specifier.contains(pinned, prereleases=True):
                clashes.append(f"{name} needs {need}, the lock has {pinned}")
    assert looked > 50
    assert clashes == []


def test_the_lock_names_no_registry_and_says_how_it_was_made():
    assert "uv pip compile pyproject.toml --universal --python-version 3.11" in LOCK
    assert "://" not in LOCK
    assert "index-url" not in LOCK
    assert "find-links" not in LOCK
    assert locked()["mlflow"] != "3.18.0"


def test_the_wheel_holds_package_configuration_weights_and_notice(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("ecgadv-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        deep = archive.getinfo(DEEP_WEIGHTS).compress_size
        scripts = next(n for n in names if n.endswith("entry_points.txt"))
        assert "ecgadv = ecgadv.cli:main" in archive.read(scripts).decode()
    assert wheel.stat().st_size - deep < 5_000_000
    for file in (REPO / "conf").rglob("*.yaml"):
        assert f"ecgadv/conf/{file.relative_to(REPO / 'conf').as_posix()}" in names
    for needed in (
        "ecgadv/victims/weights/compact.npz",
        "ecgadv/victims/weights/compact.json",
        DEEP_WEIGHTS,
        "ecgadv/victims/weights/resnet34.json",
        "ecgadv/report/template.html",
        "ecgadv/report/report.css",
        "ecgadv/report/report.js",
    ):
        assert needed in names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert {name.partition("/")[0] for name in names} == {
        "ecgadv",
        f"ecgadv-{ecgadv.__version__}.dist-info",
    }


def test_the_weights_are_small():
    files = set((REPO / "ecgadv" / "victims" / "weights").iterdir()) - {REPO / DEEP_WEIGHTS}
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert (REPO / DEEP_WEIGHTS).stat().st_size <= 28_000_000


def test_no_file_names_a_place_on_somebodys_machine():
    # Written in two parts, or this file would be the one that is found.
    places = ["/wor" + "k/", "../sha" + "red", "/ro" + "ot/", "/home" + "/", "DESIGN" + ".md"]
    found = []
    for file in tracked():
        content = file.read_bytes()
        if b"\0" in content[:8000]:
            continue
        text = content.decode("utf-8", errors="replace")
        found += [f"{file.relative_to(REPO)}: {place}" for place in places if place in text]
    assert found == []


def test_no_large_and_no_pickled_file_is_tracked():
    for file in tracked():
        assert file == REPO / DEEP_WEIGHTS or file.stat().st_size < 4_000_000, file
        assert file.suffix not in (".pkl", ".pickle", ".joblib", ".mat", ".hea", ".zip"), file


def test_ci_is_an_executable_script_that_runs_the_readme_commands():
    script = REPO / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    # The patterns by which it finds the commands must find exactly one each.
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    patterns = re.findall(r"readme_command '([^']+)'", text)
    assert len(patterns) == 2
    for pattern in patterns:
        assert len(re.findall(pattern, readme, re.M)) == 1, pattern
