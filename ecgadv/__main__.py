"""``python -m ecgadv`` is the console script ``ecgadv``."""

from ecgadv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
