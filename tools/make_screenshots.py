"""Take the pictures of the report and of the MLflow UI in a real browser, from a real sweep.

    python run.py -m metric=l2,diff,diffl2
    python run.py task=report sweep=multirun_outputs/SWEEP
    python tools/make_screenshots.py multirun_outputs/SWEEP docs/images

SWEEP is the folder that the first command prints. Needs the extra ``docs``, Chromium and its driver
(Debian: ``apt-get install chromium chromium-driver``). An MLflow server is started on a free port
of this machine for the store that tracked the sweep (``mlflow.db`` beside ``multirun_outputs``),
and stopped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import browser

from ecgadv.tracking import memory, resolve_uri

WIDTH = 1440
SHRINK = 0.8
"""Size of a kept picture over that on the screen."""


@contextlib.contextmanager
def server(store: str) -> Iterator[str]:
    """An MLflow server of a store; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1",
               "--port", str(port), "--backend-store-uri", store]  # fmt: skip
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    quiet = subprocess.DEVNULL
    with tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=quiet, stderr=quiet)
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 180
            while True:
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"{address}/health", timeout=2)
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit("the MLflow server did not start")
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait(20)


def keep(window: browser.Browser, file: Path, height: int) -> None:
    """Save what the window shows, in few colours and so in few bytes."""
    from PIL import Image

    scratch = file.with_suffix(".full.png")
    window.screenshot(scratch, WIDTH, height)
    with Image.open(scratch) as picture:
        size = (round(picture.width * SHRINK), round(picture.height * SHRINK))
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(
            128, dither=Image.Dither.NONE
        ).save(file, optimize=True)
    scratch.unlink()
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def report(window: browser.Browser, sweep: Path, images: Path) -> None:
    """The head of the sweep's report, and its cases sorted and filtered."""
    window.open(sweep / "report.html")
    keep(window, images / "report.png", 1150)
    window.all("#table-cases [aria-label='filter target']")[0].send_keys("N")
    window.all("#table-cases [aria-label='filter d_l2']")[0].send_keys("< 100")
    window.js(
        "const heads = [...document.querySelectorAll('#table-cases thead button')];"
        "heads.find(b => b.textContent === 'd_l2').click();"
        "document.getElementById('cases').scrollIntoView()"
    )
    keep(window, images / "report_cases.png", 800)


def mlflow(window: browser.Browser, address: str, run_id: str, images: Path) -> None:
    """The sweep's run, the comparison that its links lead to, and a job's figures."""

    def wait(script: str) -> None:
        end = time.monotonic() + 60
        while not window.js(f"return Boolean({script})"):
            if time.monotonic() > end:
                raise SystemExit(f"the UI never showed: {script}")
            time.sleep(0.3)
        time.sleep(2.5)  # charts move into place

    def follow(words: str, ready: str) -> None:
        named = "[...document.links].find(e => e.textContent.trim() === arguments[0])"
        target = window.js(f"return {named}.href", words)
        window.open(target)
        wait(ready)

    from ecgadv.tracking import database

    api = database.client(address)
    run = api.get_run(run_id)
    experiment = run.info.experiment_id
    window.driver.set_window_size(WIDTH, 1000)
    # The panel of MLflow's assistant would cover a quarter of the page.
    closed = "localStorage['mlflow.assistant.panelOpen_v1'] = 'false';"
    closed += "localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = 'true';"
    window.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": closed})
    here = f"{address}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
    described = "document.body.textContent.includes('charts of the jobs')"
    window.open(here)
    wait(described)
    window.js(
        "const named = (words, kind) => [...document.querySelectorAll(kind)]"
        ".find(e => e.textContent.trim() === words);"
        "named('Show more', 'button')?.click()"
    )
    time.sleep(1)
    keep(window, images / "mlflow_sweep.png", 900)
    follow("charts of the jobs", "document.querySelector('.js-plotly-plot')")
    keep(window, images / "mlflow_charts.png", 1050)
    window.open(here)
    wait(described)
    follow("their differences", "document.querySelector('.js-plotly-plot')")
    # The plot begins with the first metric that was logged, one of the machine's.
    field = window.all("input[role=combobox]")[1]
    field.click()
    for keys in ("\ue003", "d_smooth/median", "\ue007"):  # backspace, a name, enter
        field.send_keys(keys)
        time.sleep(1)
    window.js("document.activeElement.blur()")
    time.sleep(2)
    keep(window, images / "mlflow_compare.png", 1050)
    jobs = api.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    job = next(j for j in jobs if j.data.params["metric"] == "diff")
    kept = [item.path for item in api.list_artifacts(job.info.run_id, "figures")]
    figure = next(path for path in kept if "/median_1_" in path)
    place = f"{address}/#/experiments/{experiment}/runs/{job.info.run_id}/artifacts/{figure}"
    place += "?workflowType=machine_learning"
    window.open(place)
    wait("[...document.images].some(i => i.naturalWidth > 800)")
    keep(window, images / "mlflow_figure.png", 900)


def main() -> None:
    """Read the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep that MLflow has tracked")
    parser.add_argument("images", type=Path, help="folder that the pictures go to")
    parser.add_argument("--store", help="address of the store; mlflow.db beside multirun_outputs")
    options = parser.parse_args()
    reason = browser.missing()
    if reason:
        raise SystemExit(reason)
    sweep = options.sweep.resolve()
    store = resolve_uri(options.store, sweep.parents[1])
    run_id = memory.recall(sweep / memory.PARENT_FILE, store).get("run_id")
    if not run_id or not (sweep / "report.html").is_file():
        raise SystemExit(f"{sweep}: no tracked sweep with a report.html; see the first lines here")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = browser.start(Path(profile))
        try:
            window = browser.Browser(driver, Path(profile))
            report(window, sweep, options.images)
            with server(store) as address:
                mlflow(window, address, str(run_id), options.images)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
