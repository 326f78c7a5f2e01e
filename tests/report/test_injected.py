"""What the report says of injected signals: rates on own and on other recordings."""

import csv
import io

import pytest
from fake_run import write_run
from test_report import page_of

from ecgadv.evaluate.statistics import wilson
from ecgadv.report import injected, write_report
from ecgadv.report.pictures import write_figures

COLUMNS = (
    "perturbation_case", "victim_record", "source", "target", "same_record", "n_shifts", "hits_A",
    "hits_N", "hits_O", "hits_noise", "success_rate", "made_from", "n_clean", "n_success",
)  # fmt: skip


def rows(clean=True):
    """Four signals from A to N and O, each on its own recording and on five others.

    On its own recording 90 of 100 readings reach the target, on the others half; at ten onsets the
    unperturbed recording is not read as its source, and the last one never is.
    """
    found = []
    for k in range(4):
        for r in range(6):
            own = r == k
            hits = 90 if own else 50
            row = {
                "perturbation_case": f"c{k}", "victim_record": f"A{r:03d}", "source": "A",
                "target": "N" if k < 2 else "O", "same_record": "true" if own else "false",
                "n_shifts": 100, "hits_A": 100 - hits, "hits_N": hits, "hits_O": 0,
                "hits_noise": 0, "made_from": "A", "success_rate": hits / 100,
            }  # fmt: skip
            if clean:
                never = r == 5
                row |= {"n_clean": 0 if never else 90, "n_success": 0 if never else hits - 10}
                row["success_rate"] = "" if never else row["n_success"] / row["n_clean"]
            found.append(row)
    return found


def write(folder, table):
    with (folder / "evaluation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if "n_clean" not in table[0]:
            writer.fieldnames = COLUMNS[:-2]
        writer.writeheader()
        writer.writerows(table)


def rates_of(folder):
    found = injected.rates(injected.read_evaluation(folder))
    return {(row.kind, row.source, row.target): row for row in found}


def test_onsets_read_wrong_before_any_change_count_nowhere(run):
    write(run, rows())
    found = rates_of(run)
    assert list(found) == [
        ("same_record", "A", "N"), ("same_record", "A", "O"), ("same_record", "all", ""),
        ("other_records", "A", "N"), ("other_records", "A", "O"), ("other_records", "all", ""),
    ]  # fmt: skip
    own, other = found["same_record", "all", ""], found["other_records", "all", ""]
    assert (own.n_hits, own.n_trials, own.n_records, own.n_signals) == (320, 360, 4, 4)
    assert own.rate == pytest.approx(8 / 9)
    assert own.interval == pytest.approx(wilson(320, 360))
    # All recordings agree: as many trials as recordings.
    assert own.by_records == pytest.approx(wilson_of(8 / 9, 4))
    # The recording that is never read right is no recording.
    assert (other.n_hits, other.n_trials, other.n_records) == (40 * 16, 90 * 16, 5)
    assert found["same_record", "A", "N"].by_records is None
    assert found["other_records", "A", "N"].by_records is not None


def wilson_of(rate, n):
    from ecgadv.evaluate.statistics import wilson_band

    low, high = wilson_band([rate * n], n)
    return float(low[0]), float(high[0])


def test_tables_of_earlier_versions_count_every_onset(run):
    write(run, rows(clean=False))
    found = rates_of(run)
    own, other = found["same_record", "all", ""], found["other_records", "all", ""]
    assert (own.n_hits, own.n_trials) == (360, 400)
    assert (other.n_hits, other.n_trials, other.n_records) == (1000, 2000, 6)


def test_other_classes_are_told_apart(run):
    table = rows()
    table.append(table[1] | {"source": "O", "target": "N", "victim_record": "O001"})
    write(run, table)
    found = rates_of(run)
    assert found["other_classes", "O", "N"].n_records == 1
    assert found["other_records", "all", ""].n_records == 5


def test_runs_without_onsets_have_no_such_result(run):
    assert injected.read_evaluation(run) is None
    once = [row | {"n_shifts": 1, "n_clean": 1, "n_success": 1} for row in rows()]
    # Edited recordings are tried on themselves only.
    write(run, [row for row in once if row["same_record"] == "true"])
    assert injected.read_evaluation(run) is None
    assert injected.write_figure(run) == []
    # A signal that was tried on others at one onset each is a result.
    write(run, once)
    assert len(injected.read_evaluation(run)) == 24


def test_the_report_shows_them_as_tile_table_and_figure(run, readable):
    write(run, rows())
    page = page_of(write_report(run))
    said = " ".join(page.text)
    assert "target reached on its own recording" in said
    assert "88.9 % (" in said
    assert "320 of 360 readings, 4 recordings" in said
    assert "target reached on other recordings" in said
    table = page.tables["table-at-random-onsets"]
    assert len([line for line in table if "all" in line]) == 2
    first = next(line for line in table if line[:3] == ["on its own recording", "A", "N"])
    assert first[3:7] == ["2", "2", "160/180", "88.9 %"]
    assert first[7] == "–"
    captions = [image["alt"] for image in page.images]
    assert "rates at random onsets, on own and on other recordings" in captions


def test_the_figure_shows_every_rate_with_its_interval(run):
    write(run, rows())
    found = injected.rates(injected.read_evaluation(run))
    axes = injected.figure(found).axes[0]
    lines = {line.get_gid(): line for line in axes.get_lines()}
    for row in found:
        mark = f"{row.kind} {row.source}>{row.target}"
        assert lines[mark].get_xdata()[0] == pytest.approx(row.rate)
        if row.by_records is None:
            assert f"interval {mark}" not in lines
        else:
            assert tuple(lines[f"interval {mark}"].get_xdata()) == row.by_records


def test_the_terminal_shows_them_in_80_columns(run):
    from rich.console import Console

    write(run, rows())
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(injected.console_table(injected.rates(injected.read_evaluation(run))))
    text = console.export_text()
    assert "320/360" in text
    assert "88.9 %" in text
    assert max(map(len, text.splitlines())) <= 80


def test_skipped_cases_are_counted_and_said(tmp_path, readable):
    run = write_run(tmp_path / "run")
    file = run / "cases.csv"
    table = list(csv.DictReader(file.open(newline="")))
    for k in range(3):
        table.append(dict.fromkeys(table[0], "") | {
            "case_id": f"x{k}", "record": f"X{k}", "source": "A", "target": "N",
            "success": "false", "status": "skipped",
            "message": f"it is read as A at {k} of 100 random onsets" if k else "",
        })  # fmt: skip
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, table[0])
        writer.writeheader()
        writer.writerows(table)
    page = page_of(write_report(run))
    said = " ".join(page.text)
    assert "3 skipped: the deployment does not read them as their source" in said
    assert "1 skipped: flat line" in said
    assert page.tables["table-success"][-1][2] == "23/25"
    assert write_figures(run).overview
