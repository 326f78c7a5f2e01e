"""``python -m ecgadv`` is the console script ``ecgadv``."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # ``-m`` puts the working folder first, where a keras.py would hide the package: last then.
        sys.path.append(sys.path.pop(0))

    from ecgadv.cli import main

    raise SystemExit(main())
