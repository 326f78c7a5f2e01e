"""The picture of a reading study's second part, from the page in a headless Chromium.

    python run.py task=report report.study=true sweep=multirun_outputs/<the sweep's folder>
    python tools/make_reading_picture.py \
        multirun_outputs/<the sweep's folder>/reading_study/study.html docs/images/reading_study.png

Needs Chromium with its driver, and selenium (extra ``docs``). The first part is answered at random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="study.html")
    parser.add_argument("image", type=Path, help="file that the picture goes to")
    options = parser.parse_args()
    import browser

    if why := browser.missing():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory() as profile:
        driver = browser.start(Path(profile))
        try:
            page = browser.Browser(driver, Path(profile))
            page.open(options.page)
            page.keys("1", "ENTER", "ENTER")
            while page.all(".question") and len(page.all(".strip")) == 2:
                page.keys("1", "1")
            page.keys("ENTER")  # the instructions of the second part
            page.keys("2")
            driver.set_window_size(1240, 1600)
            page.js("window.scrollTo(0, 0)")
            page.one("body").screenshot(str(options.image))
        finally:
            driver.quit()
    print(options.image)


if __name__ == "__main__":
    main()
