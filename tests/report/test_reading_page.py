"""The page of a reading study: what it holds, what it hides, and that a reader can answer it."""

import base64
import csv
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from fake_run import config, write_run

from ecgadv.errors import StoreError
from ecgadv.reader_study import page as study
from ecgadv.reader_study.answers import join, read_answers, read_key
from ecgadv.reader_study.scores import score
from ecgadv.report import data

METRICS = ("l2", "diff", "diffl2")


@pytest.fixture
def runs(tmp_path, readable):
    return {m: write_run(tmp_path / m, seed=k, metric=m) for k, m in enumerate(METRICS)}


@pytest.fixture
def four(monkeypatch, runs):
    """A study of four recordings (the made-up source has four that differ): three and one."""
    return study.write_study(runs, runs["l2"].parent, records=4, seconds=4.0, seed=5)


def payload(page):
    text = page.read_text("utf-8")
    (coded,) = re.findall(r'id="study">([^<]*)</script>', text)
    return json.loads(base64.b64decode(coded)), text


def signal(coded):
    return np.frombuffer(base64.b64decode(coded), "<i2") * study.STEP_MV


def test_every_group_sees_a_recording_once_and_every_metric_in_turn(runs):
    found = study.candidates(runs, 10, seed=1)
    shown, behind = study.trials(found, 1, 4.0)
    assert len(found) == 8  # two recordings a class in the made-up runs
    assert len({c.record for c in found}) == 8
    assert len(shown) == 3 * 6 + 2
    groups = {}
    for trial in behind.values():
        if trial["kind"] == "detect":
            groups.setdefault(trial["group"], []).append(trial)
    for mine in groups.values():
        records = [t["record"] for t in mine]
        assert len(records) == len(set(records)) == 6
        metrics = [next(iter(t["cases"])) for t in mine]
        assert {metrics.count(m) for m in METRICS} == {2}
    # Over the groups, every recording is seen under every metric.
    under = {(t["record"], next(iter(t["cases"]))) for g in groups.values() for t in g}
    assert len(under) == 18
    second = [t for t in behind.values() if t["kind"] == "closest"]
    assert {t["record"] for t in second}.isdisjoint({r for r, _ in under})
    assert all(set(t["strips"].values()) == set(METRICS) for t in second)


def test_strips_are_the_original_and_the_altered_signal(runs, four):
    page, key = four
    content, _ = payload(page)
    known = read_key(key)
    assert known["study"] == content["study"]
    assert known["seed"] == 5
    for trial in content["trials"]:
        behind = known["trials"][trial["id"]]
        first = round(behind["start_s"] * 300)
        for strip in trial["strips"]:
            what = behind["strips"][strip["id"]]
            metric = next(iter(behind["cases"])) if what == "original" else what
            case = behind["cases"][metric]
            (delta, scale), (signals, _) = (
                data.read_perturbations(runs[metric], [case])[case],
                data.read_signals(runs[metric], [case]),
            )
            x = signals[case]
            own = slice(first, min(x.size, first + 1200))
            wanted = x[own] * scale + (0 if what == "original" else delta[: x.size][own] * scale)
            np.testing.assert_allclose(signal(strip["data"]), wanted, atol=0.6 * study.STEP_MV)
            assert trial["low"] <= wanted.min()
            assert wanted.max() <= trial["high"]


def test_the_page_gives_nothing_away(four):
    page, key = four
    content, text = payload(page)
    known = read_key(key)
    words = {*METRICS, "diffl2", "original", "adversarial", 'seed":'}
    words |= {t["record"] for t in known["trials"].values()}
    words |= {case for t in known["trials"].values() for case in t["cases"].values()}
    inside = json.dumps(content)
    assert not [word for word in words if word in inside]
    outside = text.replace(re.findall(r'id="study">([^<]*)<', text)[0], "")
    for word in (*METRICS, "adversarial", *(t["record"] for t in known["trials"].values())):
        assert not re.search(rf"\b{re.escape(word)}\b", outside), word
    # Neither places nor names tell: both sides occur, and a name occurs once.
    sides = [
        [known["trials"][t["id"]]["strips"][s["id"]] for s in t["strips"]].index("original")
        for t in content["trials"] if t["kind"] == "detect"
    ]  # fmt: skip
    assert set(sides) == {0, 1}
    names = [s["id"] for t in content["trials"] for s in t["strips"]]
    assert len(names) == len(set(names))
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_equal_seeds_give_equal_pages_and_other_seeds_others(runs, tmp_path):
    def made(seed):
        page, key = study.write_study(runs, tmp_path, records=4, seconds=4.0, seed=seed)
        return page.read_bytes(), key.read_bytes()

    assert made(1) == made(1)
    assert made(1)[0] != made(2)[0]


def test_other_rates_and_classes_are_drawn_as_they_are():
    signal = np.sin(np.arange(2000) / 50)
    found = [
        study.Candidate(
            f"r{k}", "sinus", "flutter", {"l2": f"c{k}"}, signal, {"l2": signal / 9}, 500
        )
        for k in range(3)
    ]
    shown, behind = study.trials(found, 0, 2.0)
    for trial in shown:
        assert all(len(signal_of(strip)) == 1000 for strip in trial["strips"])
        assert (behind[trial["id"]]["start_s"] * 500) == round(behind[trial["id"]]["start_s"] * 500)
    keys = [(f"r{k}", source, "x") for k, source in enumerate(("b", "N", "a", "N", "b"))]
    order = study._draw(keys, 5, np.random.default_rng(0))
    assert [key[1] for key in order] == ["N", "a", "b", "N", "b"]


def signal_of(strip):
    return signal(strip["data"])


def test_one_metric_has_one_part(runs, tmp_path):
    page, _ = study.write_study({"l2": runs["l2"]}, tmp_path, records=4, seconds=2.0)
    content, _ = payload(page)
    assert content["groups"] == 1
    assert [t["kind"] for t in content["trials"]] == ["detect"] * 4


def test_what_cannot_be_studied_is_said(runs, tmp_path, monkeypatch):
    lost = write_run(tmp_path / "lost", metric="diff")
    text = (lost / "cases.csv").read_text().replace(",true,", ",false,")
    (lost / "cases.csv").write_text(text)
    with pytest.raises(StoreError, match="0 recordings were attacked with success under every"):
        study.candidates({"l2": runs["l2"], "diff": lost}, 5, 0)
    injected = {**config("l2"), "threat_model": "type2"}
    (runs["l2"] / "config.json").write_text(json.dumps(injected))
    with pytest.raises(StoreError, match="needs edited recordings"):
        study.candidates({"l2": runs["l2"]}, 5, 0)

    def gone(_):
        raise StoreError("moved")

    monkeypatch.setattr("ecgadv.store.reading.instantiate", gone)
    with pytest.raises(StoreError, match="cannot be read again: moved"):
        study.candidates({"diff": runs["diff"]}, 5, 0)


# --- in a browser ---------------------------------------------------------------------------


def begin(browser, page, reader):
    browser.open(page)
    assert browser.js("return document.activeElement.id") == "reader"
    browser.keys(*reader, "ENTER")
    browser.keys("ENTER")  # the instructions of the first part


def downloaded(browser, kind):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = list(browser.downloads.glob(f"*.{kind}"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no {kind} was saved")


def answer_all(browser, count):
    """Press 1 and 3 for every trial, and remember what the first strip showed."""
    drawn = []
    while browser.all("#question"):
        path = browser.js("return document.querySelectorAll('.strip .trace')[0].getAttribute('d')")
        drawn.append(path)
        browser.keys("1", "3")
        if not browser.all("#question") and browser.all("button"):
            browser.keys("ENTER")  # the instructions of the second part
        assert len(drawn) <= count
    return drawn


def test_a_reader_answers_with_the_keyboard_alone(browser, four, tmp_path):
    page, key = four
    begin(browser, page, "7")
    assert "Which strip was altered?" in browser.one("#question").text
    assert len(browser.all(".strip svg")) == 2
    # A wrong key does nothing, a choice can be taken back.
    browser.keys("9")
    assert not browser.all(".chosen")
    browser.keys("2")
    assert browser.js("return [...document.querySelectorAll('.strip')].findIndex("
                      "s => s.classList.contains('chosen'))") == 1  # fmt: skip
    assert "How sure" in browser.one("#question").text
    browser.keys("BACKSPACE")
    assert not browser.all(".chosen")
    drawn = answer_all(browser, 4)
    assert len(drawn) == 4
    assert "4 answers" in browser.one("#page").text
    browser.keys("j")
    saved = downloaded(browser, "json")
    browser.keys("c")
    table = downloaded(browser, "csv")
    assert browser.errors() == []
    assert browser.requests() == []

    content, _ = payload(page)
    answers = json.loads(saved.read_text())
    assert answers["reader"] == "7"
    assert answers["group"] == (7 - 1) % 3
    assert answers["order_seed"] > 0
    assert answers["finished"]
    assert [a["place"] for a in answers["answers"]] == [1, 2, 3, 4]
    assert [a["kind"] for a in answers["answers"]] == ["detect"] * 3 + ["closest"]
    # What was drawn as strip 1 is what the answer says was chosen.
    signals = {s["id"]: s["data"] for t in content["trials"] for s in t["strips"]}
    of = {t["id"]: t for t in content["trials"]}
    for path, answer in zip(drawn, answers["answers"], strict=True):
        assert answer["chosen"] == answer["shown"][0]
        trial = of[answer["trial"]]
        first = trial.get("reference") or signals[answer["chosen"]]
        y = np.array([float(v) for v in re.findall(r"[ML][\d.]+ (-?[\d.]+)", path)])[1:]
        wanted = (trial["high"] - signal(first)) * trial["gain"]
        np.testing.assert_allclose(y[-len(wanted) + 1 :], wanted[1:], atol=1e-3)
    assert all(a["confidence"] == 3 and a["milliseconds"] >= 0 for a in answers["answers"])
    # Both files score alike.
    rows = join(read_answers(saved), read_key(key))
    assert [r["metric"] for r in rows] == [
        r["metric"] for r in join(read_answers(table), read_key(key))
    ]
    assert score(rows)["n_answers"] == 4
    with table.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_order_and_metrics_change_with_the_reader_and_stay_with_the_same(browser, four):
    page, _ = four

    def first_strip(reader):
        begin(browser, page, reader)
        return browser.js("return document.querySelectorAll('.strip .trace')[1].getAttribute('d')")

    one = first_strip("1")
    assert first_strip("1") == one
    assert len({one, *(first_strip(r) for r in ("2", "3", "x", "y"))}) >= 3


def test_an_interrupted_reader_goes_on(browser, four):
    page, _ = four
    begin(browser, page, "15")
    browser.keys("1", "2")
    assert browser.one(".place").text == "2 of 4"
    browser.open(page)
    browser.keys("1", "5", "ENTER")
    assert browser.one(".place").text == "2 of 4"


def test_strips_are_paper_of_true_proportions(browser, four):
    page, _ = four
    content, _ = payload(page)
    begin(browser, page, "1")
    box = browser.js("const b = document.querySelector('.strip svg').getBoundingClientRect();"
                     "return [b.width, b.height]")  # fmt: skip
    millimetre = 96 / 25.4
    assert box[0] / millimetre == pytest.approx(10 + 4.0 * 25, abs=0.3)
    heights = {round((t["high"] - t["low"]) * t["gain"], 3) for t in content["trials"]}
    assert any(box[1] / millimetre == pytest.approx(h, abs=0.3) for h in heights)
    pulse = browser.js("return document.querySelector('.trace').getAttribute('d')")
    zero, top = re.match(r"M0 ([\d.]+)H2\.5V([\d.]+)H7\.5", pulse).groups()
    assert float(zero) - float(top) == pytest.approx(10)  # 10 mm, 5 mm wide: 0.2 s
    assert [s.accessible_name for s in browser.all(".strip svg")] == ["strip 1", "strip 2"]


@pytest.fixture(autouse=True)
def _not_as_installed_reader(request):
    """Readers' answers are kept by the browser; every test starts without them."""
    if "browser" in request.fixturenames:
        page = request.getfixturevalue("browser")
        blank = Path(request.getfixturevalue("tmp_path")) / "blank.html"
        blank.write_text("<!DOCTYPE html><link rel=icon href='data:,'><title>blank</title>")
        page.open(blank)
        page.js("try { localStorage.clear() } catch (e) {}")
