"""The command line in a checkout; the installed console script ``ecgadv`` does the same."""

import sys
from pathlib import Path

# Python leaves the script's own folder out where PYTHONSAFEPATH is set.
if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from ecgadv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
