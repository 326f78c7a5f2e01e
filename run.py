"""The command line in a checkout; the installed console script ``ecgadv`` does the same."""

from ecgadv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
