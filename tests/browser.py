"""A real headless Chromium for tests of pages that people open; skips where there is none.

Every test can ask for the fixture::

    def test_page(browser, tmp_path):
        browser.open(tmp_path / "page.html")
        assert browser.errors() == []

Chromium and its driver come from the system (Debian: ``apt-get install chromium chromium-driver``),
selenium from the extra ``test``. Nothing is fetched from the network.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BINARIES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1280,1000",
)  # fmt: skip


def missing() -> str:
    """Why no browser can be started here; "" where one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (extra test)"
    if not any(map(shutil.which, BINARIES)):
        return "no Chromium here (Debian: apt-get install chromium chromium-driver)"
    if not shutil.which("chromedriver"):
        return "no chromedriver here (Debian: apt-get install chromium-driver)"
    return ""


def start(profile: Path, downloads: Path | None = None) -> Any:
    """A selenium driver of a headless Chromium.

    Args:
        profile: an empty folder for the browser's own files.
        downloads: folder that pages save files to; ``None`` for no downloads.
    """
    # Selenium would look for another driver on the network, and count its starts there.
    os.environ.setdefault("SE_OFFLINE", "true")
    os.environ.setdefault("SE_AVOID_STATS", "true")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = next(filter(None, map(shutil.which, BINARIES)))
    for switch in (*SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        kept = {"download.default_directory": str(downloads), "download.prompt_for_download": False}
        options.add_experimental_option("prefs", kept)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    return driver


class Browser:
    """A page in Chromium.

    Attributes:
        driver: selenium's, for everything that has no method here.
        downloads: folder that the page's downloads land in.
    """

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, page: Path | str, ready: str = "") -> None:
        """Load a file or an address, from a clean log.

        Args:
            page: file of the page, or an address.
            ready: JavaScript expression that is true when the page is.
        """
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        self.driver.get("about:blank")
        self.log()
        self.driver.get_log("performance")
        self.driver.get(address)
        if ready:
            from selenium.webdriver.support.ui import WebDriverWait

            WebDriverWait(self.driver, 60).until(lambda _: self.js(f"return {ready}"))

    def log(self) -> list[dict[str, Any]]:
        """What the console and the loader said since it was last asked for."""
        return list(self.driver.get_log("browser"))

    def errors(self) -> list[str]:
        """Warnings and errors of the console since the log was last read."""
        return [e["message"] for e in self.log() if e["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, other than files and data, since the page was opened."""
        import json

        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [u for u in found if not u.startswith(("file:", "data:", "about:", "blob:"))]

    def js(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript; ``return`` gives its value."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The only element of a CSS selector."""
        (found,) = self.all(selector)
        return found

    def click(self, element: Any) -> None:
        """Click as a person does: where something still moves over the element, once it is free."""
        import time

        from selenium.common.exceptions import ElementClickInterceptedException

        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        end = time.monotonic() + 20
        while True:
            try:
                element.click()
                return
            except ElementClickInterceptedException:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def keys(self, *keys: str) -> None:
        """Press keys, as a reader without a mouse does; names are those of selenium's ``Keys``."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(getattr(Keys, key, key))
        chain.perform()

    def pdf(self, **options: Any) -> bytes:
        """The page as it prints."""
        wanted = {"printBackground": True, "transferMode": "ReturnAsBase64"} | options
        printed = self.driver.execute_cdp_cmd("Page.printToPDF", wanted)
        return base64.b64decode(printed["data"])

    def screenshot(self, file: Path, width: int = 1280, height: int = 1000) -> Path:
        """A picture of the window at this size, in CSS pixels."""
        self.driver.set_window_size(width, height)
        self.driver.save_screenshot(str(file))
        return file


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """A browser's driver and the folder of its downloads; one process serves the session."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    downloads = tmp_path_factory.mktemp("downloads")
    driver = start(tmp_path_factory.mktemp("chromium"), downloads)
    try:
        yield driver, downloads
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: tuple[Any, Path]) -> Browser:
    """A window of 1280 x 1000 CSS pixels and an empty folder of downloads."""
    driver, downloads = chromium
    for file in downloads.iterdir():
        file.unlink()
    driver.set_window_size(1280, 1000)
    return Browser(driver, downloads)
