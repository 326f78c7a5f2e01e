"""What the documentation says holds: commands, links, keys, names, examples, pictures."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ecgadv import config

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
WRITTEN = [page for page in PAGES if page.name != "configuration.md"]
PROGRAM = "python run.py"


def blocks(page, language):
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page):
    """Lines of the bash blocks of a page, comments left out."""
    whole = [re.sub(r"\\\n\s*", "", block) for block in blocks(page, "bash")]
    lines = [line.strip() for block in whole for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


RUNS = [
    pytest.param(line, id=f"{page.stem}: {line}"[:100])
    for page in WRITTEN
    for line in commands(page)
    if line.startswith(PROGRAM)
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with stand-ins for the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    for folder in (
        "my_records",
        "FOLDER",
        "FOLDER_1",
        "FOLDER_2",
        "FOLDER_3",
        "outputs/FOLDER",
        "multirun_outputs/SWEEP",
        "my_conf/data",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for archive in ("training2017.zip", "my_signals.npz", "my_model.keras"):
        with zipfile.ZipFile(tmp_path / archive, "w") as stand_in:
            stand_in.writestr("config.json", "{}")
    for copy in ("outputs/FOLDER/victim.keras", "compact_seed_1.keras"):
        shutil.copy("my_model.keras", copy)
    (tmp_path / "my_signals.csv").write_text("a1,A,0.1,0.2\n")
    (tmp_path / "ResNet_30s_34lay_16conv.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (option,) = blocks(REPO / "docs" / "data.md", "yaml")
    (tmp_path / "my_conf/data/mine.yaml").write_text(option)
    (tmp_path / "my_package.py").write_text("def load(root=None):\n    ...\n")
    extending = REPO / "docs" / "extending.md"
    for text in (t for kind in ("python", "yaml") for t in blocks(extending, kind)):
        name = tmp_path / text.split("\n", 1)[0].removeprefix("# ")
        name.parent.mkdir(parents=True, exist_ok=True)
        if name.name == "mine.yaml":
            # Both pages have one of that name: here it has the keys of either.
            text = yaml.safe_dump(yaml.safe_load(option) | yaml.safe_load(text))
        name.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_readme_has_two_set_up_commands_of_one_line_each():
    setup = [line for line in commands(REPO / "README.md") if "venv .venv" in line]
    assert len(setup) == 2
    for line in setup:
        assert line.startswith(
            "python3 -m venv .venv && .venv/bin/pip install -c requirements.lock"
        )
    assert setup[0].endswith("&& .venv/bin/python run.py")
    assert setup[1].endswith("&& .venv/bin/python -m pytest")


def test_every_page_of_commands_was_found():
    assert len(RUNS) >= 12


@pytest.mark.parametrize("line", RUNS)
def test_every_command_is_accepted(desk, line):
    composed = config.compose_checked(shlex.split(line.removeprefix(PROGRAM)))
    assert composed.shown_only or composed.jobs
    assert composed.is_multirun == (" -m " in f"{line} ")


def test_the_mistakes_shown_are_told_as_shown(tmp_path):
    shown = [
        (command, answer)
        for page in WRITTEN
        for block in blocks(page, "console")
        for command, answer in re.findall(r"^\$ (.*)\n(error: .*)$", block, re.M)
    ]
    assert shown
    for command, answer in shown:
        argv = shlex.split(command.removeprefix(PROGRAM))
        run = subprocess.run(
            [sys.executable, REPO / "run.py", *argv], cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode != 0
        assert run.stderr == f"{answer}\n"
        assert run.stdout == ""


def known_keys():
    """All dotted keys, and the groups' options as ``group=option``, of the reference."""
    text = (REPO / "docs" / "configuration.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"^\| `([\w.]+)` \|", text, re.M))
    return keys, set(re.findall(r"^### `(\w+=\w+)`", text, re.M))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.stem)
def test_every_key_and_option_named_in_the_text_exists(page):
    keys, options = known_keys()
    groups = {option.partition("=")[0] for option in options}
    roots = {key.partition(".")[0] for key in keys} & (groups | {"paths", "evaluation", "train"})
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    unknown = []
    for span in re.findall(r"`([^`\n]+)`", text):
        if span.startswith("python3 -m venv"):
            continue
        for word in re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-z_0-9]+)+)(?![\w/(-])", span):
            is_file = word.endswith((".keras", ".json", ".csv", ".npz"))
            if word.partition(".")[0] in roots and word not in keys and not is_file:
                unknown.append(word)
        for group, option in re.findall(r"(?<![\w.])([a-z_]+)=([A-Za-z_0-9]+)(?![\w.])", span):
            if group in groups and f"{group}={option}" not in options:
                unknown.append(f"{group}={option}")
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            text = target.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", text, re.M)
            slugs = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs or f'<a id="{anchor}">' in text, link


def test_every_page_can_be_reached_from_the_readme_and_from_the_index():
    for start in ("README.md", "docs/index.md"):
        text = (REPO / start).read_text(encoding="utf-8")
        for page in (REPO / "docs").glob("*.md"):
            assert page.name == "index.md" or f"{page.name})" in text, (start, page.name)


def site():
    """``mkdocs.yml``, and its pages in order."""
    settings = yaml.safe_load((REPO / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(node):
        if isinstance(node, str):
            return [node]
        inner = node.values() if isinstance(node, dict) else node
        return [page for item in inner for page in pages(item)]

    return settings, pages(settings["nav"])


def test_every_page_has_a_place_in_the_site():
    settings, listed = site()
    there = {page.name for page in (REPO / "docs").glob("*.md")}
    assert len(listed) == len(set(listed))
    assert there == set(listed) - {"CHANGELOG.md"}
    assert settings["validation"]["links"]["unrecognized_links"] == "warn"
    assert settings["theme"]["font"] is False  # nothing is fetched from elsewhere


def test_the_site_is_built_with_warnings_as_errors():
    text = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    # Not --quiet: then no warning is counted, and all of them pass.
    (line,) = re.findall(r"mkdocs build.*", text)
    assert "--strict" in line
    assert "-q" not in line


def test_the_site_points_links_to_copies_and_takes_the_results_from_the_readme():
    import importlib.util

    spec = importlib.util.spec_from_file_location("site_hooks", REPO / "tools" / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    results = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
    made = hooks.on_page_markdown(results, None, None, None)
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- results -->\n(.*)<!-- /results -->", readme, re.S)[1]
    assert table in made
    assert "](docs/" not in made
    assert "../" not in made
    link = hooks.on_page_markdown("see [it](../NOTICE) and [x](a.md)", None, None, None)
    assert link == "see [it](NOTICE) and [x](a.md)"
    assert hooks.on_page_content("<p>:func:<code>x</code>", None, None, None) == "<p><code>x</code>"


def test_every_name_of_the_api_reference_exists():
    from importlib import import_module

    names = re.findall(r"^::: (\S+)$", (REPO / "docs" / "reference.md").read_text("utf-8"), re.M)
    assert len(names) > 20
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(import_module(module), attribute), name


def test_the_pictures_are_pictures_of_some_size():
    from matplotlib.image import imread

    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {file.resolve() for file in (REPO / "docs" / "images").glob("*.png")}
    for file in shown:
        assert file.stat().st_size < 400_000
        image = imread(file)
        assert min(image.shape[:2]) > 400
        assert image[..., :3].std() > 0.03


def test_every_column_of_the_results_is_explained():
    from ecgadv.store import CASE_COLUMNS

    text = (REPO / "docs" / "outputs.md").read_text(encoding="utf-8")
    table = text[text.index("## `cases.csv`") : text.index("## `perturbations.npz`")]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert tuple(re.findall(r"`(\w+)`", "".join(first))) == CASE_COLUMNS


@pytest.mark.parametrize("name", ["compact", "resnet34"])
def test_the_scores_told_are_those_of_the_card(name):
    file = REPO / f"ecgadv/victims/weights/{name}.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    scores = card["heldout_scores"]
    text = (REPO / "docs" / "victims.md").read_text(encoding="utf-8")
    for letter, counts in zip(card["classes"], scores["confusion"], strict=True):
        row = " | ".join(str(count) for count in counts)
        assert f"| **{letter}** | {row} | {scores['f1'][letter]:.3f} |" in text
    printed = _script("victim_card.py", name)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.removeprefix(f"{name}\n\n").strip() in text
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    for page in (text, readme):
        assert f"{scores['f1_nao_mean']:.3f}" in page
        assert f"{scores['n']:,} " in page
        assert f"{card['parameters']:,}" in page


@pytest.mark.slow
@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.stem)
def test_the_python_examples_run(page, tmp_path, monkeypatch, capsys):
    examples = blocks(page, "python")
    if not examples:
        return
    import ecgadv
    from ecgadv.records import synthetic

    monkeypatch.chdir(tmp_path)
    # One that is read as neither of the targets that the pages ask for.
    victim = ecgadv.load_victim("compact")
    signal = next(
        record.signal for record in synthetic.load(per_class=6)
        if "ANO~"[int(victim.pipeline(record.signal).argmax())] == "O"
    )  # fmt: skip
    np.savetxt("my_ecg.txt", signal)
    scope = {"my_signal": signal}
    for example in examples:
        code = compile(example, page.name, "exec")
        if "outputs/FOLDER" not in example:  # the notebook reads a stored run
            exec(code, scope)
    if "result" in scope:
        assert scope["result"].success.all()
        assert "True" in capsys.readouterr().out
    if page.stem == "data":
        monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
        from ecgadv.records import arrays

        assert sorted(arrays.load("my_signals.npz").labels) == sorted("AANNOO~~")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(REPO / "notebooks" / "quickstart.ipynb", 4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output.get("text", "") for output in outputs)
    assert "success True" in printed
    assert "confirmed" in printed


def test_the_citation_is_complete():
    cited = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    required = {"cff-version", "message", "title", "authors", "version", "license"}
    assert required <= set(cited)
    assert cited["preferred-citation"]["identifiers"][0]["value"] == "arXiv:1901.03808"
    assert len(cited["preferred-citation"]["authors"]) == 5


def test_no_page_leaves_anything_to_be_filled_in():
    for page in PAGES:
        # In quotes: what somebody else left open, and is answered there.
        text = page.read_text("utf-8").replace('("XXX")', "")
        assert not re.search(r"TODO|TBD|FIXME|XXX|_OUTPUT\b|_TABLE\b", text), page


def _script(name, *arguments):
    return subprocess.run(
        [sys.executable, REPO / "tools" / name, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )


def test_the_table_of_results_is_made_from_runs_and_not_from_copies(tmp_path):
    spread = {"median": 2.0, "q25": 1.0, "q75": 3.0}
    summary = {
        "data": {"name": "synthetic"},
        "attack": "minnorm",
        "n_success": 23,
        "n_cases": 24,
        "ci95": [0.797, 0.993],
        "distances": {"d_l2": spread, "d_smooth": spread, "snr_db": spread},
        "gradients_per_case": 100.0,
    }
    for folder, metric in (("outputs/b", "diff"), ("outputs/a", "l2"), ("mlartifacts/a", "l2")):
        place = tmp_path / folder
        place.mkdir(parents=True)
        (place / "summary.json").write_text(json.dumps(summary | {"metric": metric}))
        (place / "config.json").write_text('{"selection": {"split": "heldout"}}')
        if folder.startswith("outputs"):
            (place / "plan.json").write_text("{}")
    done = _script("results_table.py", tmp_path)
    assert done.returncode == 0, done.stderr
    _, _, first, second = done.stdout.splitlines()
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[:4] == ["synthetic, heldout", "minnorm", "l2", "23/24"]
    # Neither the summary nor a table of cases tells the recordings.
    assert cells[4:7] == ["–", "–", "79.7–99.3 %"]
    assert cells[7] == "2 (1 to 3)"
    assert "| diff |" in second


def test_the_papers_table_has_a_cell_for_each_pair_and_metric(tmp_path):
    sys.path.insert(0, str(REPO / "tests" / "tracking"))
    from fake_run import write_run

    sweep = tmp_path / "sweep"
    for k, metric in enumerate(("diff", "l2", "diffl2")):
        write_run(sweep / f"{k}_job", seed=k, metric=metric)
    (sweep / "3_job").mkdir()
    done = _script("paper_table.py", sweep, tmp_path / "table.png")
    assert done.returncode == 0, done.stderr
    head, _, *lines, _ = done.stdout.splitlines()
    assert head == "| pair | `l2`, d_l2 | `diff`, d_smooth | `diffl2`, d_smooth_l2 |"
    cases = pd.read_csv(sweep / "1_job" / "cases.csv")
    for line in lines[:-1]:
        pair, first, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        source, target = pair.split(" to ")
        mine = cases[cases["source"].eq(source) & cases["target"].eq(target)]
        mine = mine[mine["status"].ne("skipped")]
        won = mine[mine["success"].astype(str).str.lower().eq("true")]
        assert first.startswith(f"{len(won)}/{len(mine)}, ")
        assert " (Wilson " in first
        assert f"; {won['d_l2'].median():.3g} (" in first
    assert lines[-1].startswith("| all |")
    assert (tmp_path / "table.png").stat().st_size > 5000
    none = _script("paper_table.py", tmp_path / "nothing", tmp_path / "table.png")
    assert "holds no finished job" in none.stderr


def test_the_pictures_need_a_sweep_with_the_smooth_metric(tmp_path):
    done = _script("make_figures.py", tmp_path, tmp_path)
    assert done.returncode == 1
    assert "holds no job with metric=diff" in done.stderr


def test_the_screenshots_need_a_tracked_sweep(tmp_path):
    (tmp_path / "a" / "sweep").mkdir(parents=True)
    done = _script("make_screenshots.py", tmp_path / "a" / "sweep", tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no tracked sweep" in done.stderr or "selenium" in done.stderr or "hromi" in done.stderr
