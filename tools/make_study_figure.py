"""Draw the figure of a study for the documentation, in print resolution.

    python run.py -m experiment=type2_window target=N "selection.source=[A]"
    python tools/make_study_figure.py multirun_outputs/<the sweep> … docs/images/windows.png

Several sweeps of the same study are drawn as one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecgadv.report import study, style


def main() -> None:
    """Draw the sweeps that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", nargs="+", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    jobs = study.read_study(*given.sweeps)
    if not jobs:
        raise SystemExit("no job there was tried at random onsets")
    print(study.markdown(jobs))
    print(style.save(study.figure(jobs), given.file, dpi=170))


if __name__ == "__main__":
    main()
