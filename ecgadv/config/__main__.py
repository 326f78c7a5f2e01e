"""``python -m ecgadv.config --docs`` writes the reference of all options."""

import sys

from ecgadv.config.composer import conf_dir
from ecgadv.config.reference import reference

if __name__ == "__main__":
    if sys.argv[1:] != ["--docs"]:
        raise SystemExit("usage: python -m ecgadv.config --docs > docs/configuration.md")
    # The page is UTF-8 whatever the terminal shows.
    sys.stdout.buffer.write(reference(conf_dir()).encode())
