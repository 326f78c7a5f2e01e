"""What the MLflow UI makes of a sweep, in a real browser."""

import sys
import time
from pathlib import Path

import pytest
from fake_run import write_run

from ecgadv.tracking import resolve_uri, upload
from ecgadv.tracking.database import client

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sweep(chromium, tmp_path_factory):
    """Address of a server and the run of a sweep of three metrics, uploaded to its store."""
    sys.path.insert(0, str(REPO / "tools"))
    from make_screenshots import server

    root = tmp_path_factory.mktemp("ui")
    place = root / "multirun_outputs" / "by-metric"
    for k, metric in enumerate(("l2", "diff", "diffl2")):
        job = write_run(place / f"{k}_metric-{metric}", seed=k, metric=metric)
        (job / "report.html").write_text(
            "<!DOCTYPE html><title>r</title><p id=x>before</p>"
            "<script>document.getElementById('x').textContent = 'scripts run'</script>"
        )
    (place / "multirun.yaml").write_text("hydra: {}\n")
    store = resolve_uri(None, root)
    done = upload(place, {"name": "mlflow", "experiment": "sweeps"}, root=root)
    assert len(done.uploaded) == 3
    with server(store) as address:
        api = client(address)
        experiment = api.get_experiment_by_name("sweeps").experiment_id
        (parent,) = api.search_runs([experiment], "tags.kind = 'sweep'")
        yield address, experiment, parent


def wait(browser, script):
    end = time.monotonic() + 60
    while not browser.js(f"return Boolean({script})"):
        assert time.monotonic() < end, f"never: {script}"
        time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_links_of_a_sweep_lead_to_its_comparison(browser, sweep):
    address, experiment, parent = sweep
    page = f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}"
    browser.open(page)
    named = "[...document.links].find(e => e.textContent.trim() === 'charts of the jobs')"
    wait(browser, named)
    charts = browser.js(f"return {named}.href")
    browser.open(charts)
    wait(browser, "document.querySelector('.js-plotly-plot')")
    # The jobs stand alone: their parent, which has none of the results, is not listed.
    for words in ("the jobs of the sweep", "3 matching runs", "Parallel", "success_rate",
                  "d_l2/median", "0_metric-l2", "2_metric-diffl2"):  # fmt: skip
        wait(browser, f"document.body.textContent.includes('{words}')")
    # Bars, not lines against a step.
    kinds = "return [...document.querySelectorAll('.js-plotly-plot')].map(p => p.data[0].type)"
    assert set(browser.js(kinds)) == {"bar"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_report_works_among_the_artifacts(browser, sweep):
    address, experiment, parent = sweep
    api = client(address)
    job = api.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")[0]
    runs = f"{address}/#/experiments/{experiment}/runs"
    browser.open(f"{runs}/{job.info.run_id}/artifacts/report.html")
    wait(browser, "document.querySelector('iframe')")
    time.sleep(2)
    browser.driver.switch_to.frame(browser.all("iframe")[0])
    try:
        assert browser.one("#x").text == "scripts run"
    finally:
        browser.driver.switch_to.default_content()
