"""The report of a thousand cases: quick, small, and opened in a real Chromium."""

import csv
import re
import time
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fake_run import made_up_records, write_run

from ecgadv.evaluate.perceptibility import PERCEPTIBILITY_COLUMNS
from ecgadv.report import write_report, write_sweep_report


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A report of 1,010 cases, and the seconds of CPU that it took."""
    run = write_run(tmp_path_factory.mktemp("thousand") / "run", per_pair=84)
    cases = pd.read_csv(run / "cases.csv", dtype=str)
    cases = cases.replace("out of memory", "<img src=x onerror=boom()>")
    for name in PERCEPTIBILITY_COLUMNS:
        cases[name] = np.random.default_rng(0).uniform(0.01, 99, len(cases))
    cases.to_csv(run / "cases.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecgadv.store.reading.instantiate", made_up_records)
        start = time.process_time()  # the machine may be busy with something else
        file = write_report(run)
    return file, time.process_time() - start


@pytest.fixture
def page(browser, thousand):
    browser.open(thousand[0])
    return browser


def shown(page):
    """Cells of the rows of the table of cases that are to be seen."""
    return page.js(
        "return [...document.querySelectorAll('#table-cases tbody tr')].filter(r => !r.hidden)"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )


def column(page, name):
    heads = page.js(
        "return [...document.querySelectorAll('#table-cases thead button')].map(b => b.textContent)"
    )
    return heads.index(name)


def write(page, name, words):
    """Type into, or choose from, the filter of a column."""
    field = page.one(f"#table-cases [aria-label='filter {name}']")
    if field.tag_name == "input":
        field.clear()
    field.send_keys(words)
    return shown(page)


def count(page):
    return page.one("#count-cases").text


def test_a_thousand_cases_are_quick_and_small(thousand):
    file, seconds = thousand
    assert seconds < 30
    assert file.stat().st_size < 15e6
    text = file.read_text()
    rows = text[text.index('<table id="table-cases"') :]
    assert rows[: rows.index("</table>")].count("<tr>") == 1 + 12 * 84 + 2


def test_it_opens_in_a_second_without_an_error_or_a_request(page, thousand):
    times = []
    for _ in range(3):  # the machine may be busy with something else
        page.open(thousand[0])
        # Chromium's own clock in ms, from the start of the navigation to the load event.
        times.append(page.js("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert min(times) < 1000
    assert page.errors() == []
    assert page.requests() == []
    assert page.js("return document.compatMode") == "CSS1Compat"
    assert page.js("return [...document.images].every(i => i.complete && i.naturalWidth > 100)")
    sizes = "i => [i.width / i.height, i.naturalWidth / i.naturalHeight]"
    for drawn, natural in page.js(f"return [...document.images].map({sizes})"):
        assert drawn == pytest.approx(natural, rel=0.02)
    assert len(page.all("#gallery ~ figure")) >= 9
    # A message cannot become part of the page.
    assert page.js("return document.querySelector('td img')") is None
    # Nothing but the tables is wider than the window.
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")


def test_it_sorts(page):
    k = column(page, "d_l2")
    heading = page.all("#table-cases thead button")[k]
    page.click(heading)
    ascending = [row[k] for row in shown(page)]
    page.click(heading)
    descending = [row[k] for row in shown(page)]
    # Rows without a number (the failed and the skipped case) come last, both ways.
    assert ascending[-2:] == descending[-2:] == ["", ""]
    up = [float(cell) for cell in ascending[:-2]]
    assert up == sorted(up)
    assert len(set(up)) > 900
    assert [float(cell) for cell in descending[:-2]] == up[::-1]
    assert page.all("#table-cases th[aria-sort=descending]")[0].text.startswith("d_l2")
    assert len(page.all("#table-cases th[aria-sort]")) == 1


def test_a_table_of_quartiles_sorts_by_medians_and_keeps_the_total_below(page):
    page.click(page.all("#table-distances thead button")[2])
    cells = page.js(
        "return [...document.querySelectorAll('#table-distances tbody tr')]"
        ".map(r => [r.cells[0].textContent, r.cells[2].textContent])"
    )
    medians = [float(text.split()[0]) for _, text in cells]
    assert medians[:-1] == sorted(medians[:-1])
    assert cells[-1][0] == "all"


def test_it_filters_by_choice_text_bound_and_range(page):
    total = len(shown(page))
    assert count(page) == f"{total} rows"
    rows = write(page, "source", "N")
    k = column(page, "source")
    assert len(rows) == 3 * 84 + 2
    assert {row[k] for row in rows} == {"N"}
    rows = write(page, "d_l2", "< 20")
    assert {row[k] for row in rows} == {"N"}
    distance = column(page, "d_l2")
    assert all(float(row[distance]) < 20 for row in rows)
    assert 0 < len(rows) < 252
    assert count(page) == f"{len(rows)} of {total} rows"
    few = write(page, "d_l2", "10..20")
    assert 0 < len(few) < len(rows)
    assert all(10 <= float(row[distance]) <= 20 for row in few)
    page.click(page.all("#count-cases ~ button")[0])
    assert len(shown(page)) == total
    assert len(write(page, "message", "ONERROR")) == 1
    assert page.errors() == []


def test_what_is_shown_can_be_saved(page):
    write(page, "target", "~")
    buttons = page.all("#count-cases ~ button")
    page.click(buttons[-1])
    file = page.downloads / "cases.csv"
    end = time.monotonic() + 10
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    with file.open(newline="") as text:
        saved = list(csv.DictReader(text))
    assert len(saved) == 3 * 84 == len(shown(page))
    assert {row["target"] for row in saved} == {"~"}
    # Not the four digits of the page: what the file of the run holds.
    assert len(saved[0]["d_l2"].split(".")[1]) > 6


def test_it_can_be_used_without_a_mouse(page):
    page.keys("TAB")
    focus = "document.activeElement"
    assert page.js(f"return {focus}.textContent") == "skip to the results"
    assert page.js(f"return {focus}.getBoundingClientRect().left >= 0")
    page.js("document.querySelector('#table-cases thead button').focus()")
    page.keys("ENTER")
    assert page.js(f"return {focus}.closest('th').getAttribute('aria-sort')") == "ascending"
    page.keys("SPACE")
    assert page.js(f"return {focus}.closest('th').getAttribute('aria-sort')") == "descending"
    # Every heading cell that sorts, every field and every table that scrolls can be reached.
    for selector in ("thead button", "thead input", "thead select", ".scroll", "summary"):
        indices = "[...document.querySelectorAll(arguments[0])].map(e => e.tabIndex)"
        found = page.js(f"return {indices}", selector)
        assert found, selector
        assert set(found) == {0}, selector


def test_it_says_to_a_screen_reader_what_things_are(page):
    # A long table is laid out when it is scrolled to.
    page.js("document.getElementById('table-cases').scrollIntoView()")
    page.js("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {}
    for node in tree:
        role, name = node.get("role", {}).get("value"), node.get("name", {}).get("value", "")
        if not node.get("ignored"):
            named.setdefault(role, []).append(name)
    for role in ("button", "textbox", "combobox", "image", "link", "region", "navigation"):
        assert named[role], role
        assert all(named[role]), role
    assert len(named["main"]) == len(named["banner"]) == len(named["contentinfo"]) == 1
    assert page.js("return document.documentElement.lang") == "en"
    levels = page.js("return [...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = page.js("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = page.js("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_cases_of_the_gallery_are_linked_from_the_table(page):
    links = page.all("#table-cases td a")
    assert len(links) >= 9
    record = links[0].text
    place = links[0].get_attribute("href").partition("#")[2]
    assert record in page.js(f"return document.getElementById({place!r}).textContent")


def test_it_prints(page):
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    sheets = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 10 < sheets < 80
    # What was folded for printing is folded again.
    assert page.js("return document.querySelectorAll('details[open]').length") == 0
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        page.driver.set_window_size(1060, 800)  # A4 landscape less its margins, in CSS pixels
        for hidden in ("nav", "tr.filter", ".tools button"):
            look = "getComputedStyle(document.querySelector(arguments[0])).display"
            assert page.js(f"return {look}", hidden) == "none"
        assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_report_of_a_sweep_opens_sorts_and_filters(browser, tmp_path, monkeypatch):
    from ecgadv.errors import DataError

    def gone(_):
        raise DataError("the recordings are elsewhere")

    monkeypatch.setattr("ecgadv.store.reading.instantiate", gone)
    for k, metric in enumerate(("l2", "diff")):
        job = write_run(tmp_path / "sweep" / f"{k}_metric-{metric}", seed=k, metric=metric)
        (job / ".hydra").mkdir()
        (job / ".hydra" / "overrides.yaml").write_text(
            f"- metric={metric}\n- paths.root=/my/place\n"
        )
        write_report(job)
    page = write_sweep_report(tmp_path / "sweep")
    browser.open(page)
    assert browser.errors() == []
    assert browser.requests() == []
    assert "/my/place" not in browser.one("#table-jobs").text
    browser.one("#table-cases [aria-label='filter metric']").send_keys("diff")
    assert count(browser) == "26 of 52 rows"
    browser.one("#table-success [aria-label='filter source']").send_keys("all")
    assert browser.one("#count-success").text == "2 of 26 rows"
    browser.click(browser.all("#table-jobs thead button")[5])
    medians = [float(c.text) for c in browser.all("#table-jobs tbody td:nth-child(6)")]
    assert medians == sorted(medians)
    ids = browser.js("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
