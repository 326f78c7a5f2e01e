"""Tables and report.html: what they say, that they stand alone, and that they are quick."""

import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
from fake_run import write_run

from ecgadv.errors import ConfigError, StoreError
from ecgadv.report import data, tables, write_figures, write_report, write_sweep_report
from ecgadv.tasks import report as report_task
from ecgadv.tasks import track as track_task


class Page(html.parser.HTMLParser):
    """Tables, images and addresses of a page; fails on tags that are not closed."""

    VOID = ("meta", "link", "img", "input", "br", "!doctype")

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.addresses, self.open, self.text = {}, [], [], [], []
        self.table = None
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [v for k, v in attrs.items() if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if tag == "table":
            self.table = self.tables.setdefault(attrs.get("id", ""), [])
        if tag == "tr" and self.table is not None:
            self.table.append([])
        if tag in ("td", "th") and self.table:
            self.table[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.table = None

    def handle_data(self, text):
        self.text.append(text)
        if self.table and self.table[-1] and {"td", "th"} & set(self.open):
            self.table[-1][-1] += text.strip()


def page_of(file):
    return Page(file.read_text())


def test_rows_count_attempts_and_give_wilson_intervals(run):
    rows = {(r.source, r.target): r for r in tables.rows(data.read_cases(run))}
    assert len(rows) == 13
    assert (rows["A", "~"].n_success, rows["A", "~"].n) == (1, 2)
    assert (rows["N", "A"].n_success, rows["N", "A"].n) == (2, 3)
    total = rows["all", ""]
    assert (total.n_success, total.n) == (23, 25)
    # Wilson's interval of 23 in 25, from its formula.
    z, n, p = 1.959964, 25, 23 / 25
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert total.interval == pytest.approx((middle - half, middle + half), abs=1e-5)


def test_tables_for_terminal_and_markdown_agree(run):
    from rich.console import Console

    cases = data.read_cases(run)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(tables.success_table(cases), tables.distances_table(cases))
    text = console.export_text()
    for cells in (tables.success_cells(r) for r in tables.rows(cases)):
        assert "| " + " | ".join(cells) + " |" in tables.success_markdown(cases)
        assert cells[-1] in text
    won = cases[data.succeeded(cases)]
    assert f"{won['d_smooth'].median():.3g} (" in text
    assert f"{won['d_smooth'].median():.3g} (" in tables.distances_markdown(cases)
    assert tables.success_markdown(cases).splitlines()[1] == "|---|---|---:|---:|---:|---:|---:|"


def test_tables_fit_a_terminal_of_80_columns(run):
    from rich.console import Console

    cases = data.read_cases(run)
    cases[["d_l2", "d_smooth", "d_smooth_l2"]] = [2641.3, 0.123456, 9.876e-5]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.success_table(cases), tables.distances_table(cases))
    text = console.export_text()
    assert "2641 (2641–2641)" in text
    assert "0.123 (0.123–0.123)" in text
    assert text.count("A → N") == 1


def test_cases_are_read_as_they_were_written(run):
    cases = data.read_cases(run)
    assert cases["success"].dtype == bool
    assert len(cases) == 26
    assert len(data.attempted(cases)) == 25
    assert cases["record"].iloc[0] == "00000"
    with pytest.raises(StoreError, match=r"no cases\.csv"):
        data.read_cases(run / "nowhere")
    (run / "cases.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StoreError, match="lacks the column"):
        data.read_cases(run)


def test_the_report_explains_every_column_that_it_shows():
    from ecgadv.report.write import _HIDDEN
    from ecgadv.store import CASE_COLUMNS

    assert set(CASE_COLUMNS) - set(_HIDDEN) <= set(data.COLUMN_HELP)
    assert all(0 < len(words) < 100 for words in data.COLUMN_HELP.values())


@pytest.mark.parametrize("count", [0, 1, 2, 4, 8, 24])
def test_extremes_are_ordered_and_never_twice(run, count):
    cases = data.read_cases(run)
    cases = cases[data.succeeded(cases)].head(count)
    found = data.extremes(cases, "d_l2")
    ids = [i for kind in found.values() for i in kind]
    assert len(ids) == len(set(ids)) == min(count, len(cases), 9)
    of = dict(zip(cases["case_id"], cases["d_l2"], strict=True))
    if len(cases) >= 3:
        values = [[of[i] for i in found[k]] for k in ("best", "median", "worst")]
        assert all(values)
        assert max(values[0]) < min(values[1])
        assert max(values[1]) < min(values[2])
        assert values[2][0] == max(of.values())


def test_report_of_a_run(run, readable):
    file = write_report(run)
    page = page_of(file)
    text = file.read_text()
    # Nothing is fetched: every address is data or a place on the page.
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?://", text)
    assert len(page.tables["table-cases"]) == 26 + 2
    assert page.tables["table-success"][-1][:4] == ["all", "", "23/25", "9"]
    captions = [image["alt"] for image in page.images]
    kinds = [caption.split()[0] for caption in captions]
    assert [kinds.count(k) for k in ("best", "median", "worst", "missed")] == [3, 3, 3, 1]
    assert "success rate of every source and target class" in captions
    said = " ".join(page.text)
    for words in ("out of memory", "abc0", "3.15.0", "1901.03808", '"steps": 100', "metric=l2"):
        assert words in said
    assert len(list((run / "figures").glob("best_*.png"))) == 3


def test_the_gallery_shows_the_stored_perturbation(run, readable, monkeypatch):
    from ecgadv.report import figures

    drawn = []
    real = figures.before_after
    monkeypatch.setattr(
        figures,
        "before_after",
        lambda x, d, s, **k: drawn.append((x, d, s, k)) or real(x, d, s, **k),
    )
    (run / "predictions.csv").write_text("record,p_predicted\n00000,0.75\n00001,0.75\n")
    write_figures(run)
    stored = np.load(run / "perturbations.npz")
    cases = data.read_cases(run)
    assert len(drawn) == 10
    for x, delta, scale, said in drawn:
        row = cases[
            (cases.record == said["record"])
            & (cases.target == said["target"])
            & (cases.status == "ok")
        ].iloc[0]
        k = list(stored["case_id"]).index(row.case_id)
        np.testing.assert_array_equal(delta, stored["delta"][k][: x.size])
        assert x.size == (3600 if row.source == "A" else 9000)
        assert scale == pytest.approx(0.2)
        assert said["distances"]["d_l2"] == pytest.approx(row.d_l2)
        assert said["p_before"] == (0.75 if row.source == "A" else None)


def test_stale_gallery_files_go(run, readable):
    place = run / "figures"
    place.mkdir()
    (place / "worst_9_gone.png").write_bytes(b"old")
    (place / "mine.png").write_bytes(b"kept")
    write_figures(run)
    assert not (place / "worst_9_gone.png").exists()
    assert (place / "mine.png").exists()


def test_a_report_without_the_recordings_says_so(run, monkeypatch):
    from ecgadv.errors import DataError

    def gone(_):
        raise DataError("data.root=/x does not exist")

    monkeypatch.setattr("ecgadv.store.reading.instantiate", gone)
    said = " ".join(page_of(write_report(run)).text)
    assert "the recordings could not be read again: data.root=/x does not exist" in said


def test_names_and_messages_cannot_break_the_page(run, readable):
    text = (run / "cases.csv").read_text()
    text = text.replace("out of memory", "<script>alert(1)</script>")
    (run / "cases.csv").write_text(text)
    config = json.loads((run / "config.json").read_text())
    config["tracking"]["uri"] = "postgresql://me:s3cret@host/db"
    (run / "config.json").write_text(json.dumps(config))
    text = write_report(run).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "s3cret" not in text


def test_a_run_without_any_success(run, readable):
    text = (run / "cases.csv").read_text().replace(",true,", ",false,")
    (run / "cases.csv").write_text(text)
    page = page_of(write_report(run))
    assert page.tables["table-success"][-1][2] == "0/25"
    assert "distance_distributions" not in [i["alt"] for i in page.images]


def test_a_run_with_skipped_cases_only(run):
    lines = (run / "cases.csv").read_text().splitlines()
    (run / "cases.csv").write_text("\n".join([lines[0], lines[-1]]) + "\n")
    page = page_of(write_report(run))
    assert len(page.tables["table-cases"]) == 3
    assert "no case was attacked to its end" in " ".join(page.text)


def test_report_of_a_sweep(tmp_path, readable):
    sweep = tmp_path / "sweep"
    for k, metric in enumerate(("l2", "diff", "diffl2")):
        job = write_run(sweep / f"{k}_metric-{metric}", seed=k, metric=metric)
        (job / ".hydra").mkdir()
        (job / ".hydra" / "overrides.yaml").write_text(f"- metric={metric}\n")
    (sweep / "3_broken").mkdir()
    (sweep / "3_broken" / "status.json").write_text('{"status": "failed"}')
    page = page_of(write_sweep_report(sweep))
    jobs = page.tables["table-jobs"][2:]
    assert [row[1] for row in jobs] == ["metric=l2", "metric=diff", "metric=diffl2", ""]
    assert [row[2] for row in jobs] == ["finished"] * 3 + ["failed"]
    assert jobs[0][3:6] == ["25", "1", "92"]
    assert len(page.tables["table-cases"]) == 3 * 26 + 2
    totals = [row for row in page.tables["table-success"] if row[1:2] == ["all"]]
    assert [row[0] for row in totals] == ["l2", "diff", "diffl2"]
    assert {row[3] for row in totals} == {"23/25"}
    captions = [image["alt"] for image in page.images]
    for metric in ("l2", "diff", "diffl2"):
        assert f"success rate of every source and target class, metric {metric}" in captions
    assert sum(caption.startswith("record ") for caption in captions) == 3


def test_task_report(run, readable, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    shutil.copytree(run, sweep / "0")
    assert report_task.run({"report": {"run": str(run)}, "sweep": None}, tmp_path) == 0
    assert (run / "report.html").is_file()
    cfg = {"report": {"run": None}, "sweep": "sweep", "paths": {"root": str(tmp_path)}}
    assert report_task.run(cfg, tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(sweep / "report.html")


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"report": {"run": None}}, r"needs one of report\.run=FOLDER"),
        ({"report": {"run": "a"}, "sweep": "b"}, r"needs one of report\.run=FOLDER"),
        ({"sweep": "/no/such"}, "sweep=/no/such: no such folder"),
    ],
)
def test_task_report_without_a_folder(tmp_path, cfg, message):
    with pytest.raises(ConfigError, match=message):
        report_task.run(cfg, tmp_path)


def test_task_report_of_an_empty_sweep(tmp_path):
    with pytest.raises(StoreError, match=r"no job with a cases\.csv"):
        report_task.run({"sweep": str(tmp_path)}, tmp_path)


def test_task_track_needs_mlflow_and_a_run(run, tmp_path):
    base = {"track": {"run": str(run)}, "paths": {"root": str(tmp_path)}}
    with pytest.raises(ConfigError, match="task=track needs tracking=mlflow"):
        track_task.run(base | {"tracking": {"name": "none"}}, tmp_path)
    (tmp_path / "empty").mkdir()
    base["track"] = {"run": "empty"}
    with pytest.raises(ConfigError, match="no run lies there"):
        track_task.run(base | {"tracking": {"name": "mlflow"}}, tmp_path)


def test_task_track_reports_what_it_could_not_upload(run, tmp_path, capsys):
    cfg = {
        "track": {"run": str(run)},
        "paths": {"root": str(tmp_path)},
        "tracking": {"name": "mlflow", "uri": "http://127.0.0.1:9"},
    }
    assert track_task.run(cfg, tmp_path) == 1
    out = capsys.readouterr()
    assert "uploaded 0, unchanged 0" in out.out
    assert f"not uploaded: {run}" in out.err
