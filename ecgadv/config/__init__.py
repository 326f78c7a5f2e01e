"""Configuration: composing it and checking all of a command line.

Everything here runs before anything heavy is imported, so a mistake on the command line costs a
second and one line. ``python -m ecgadv.config --docs`` writes the reference of all options.
"""

from ecgadv.config.check import check_foreign, validate
from ecgadv.config.compose import Composed, compose_checked
from ecgadv.config.composer import conf_dir, searchpath_of, with_device
from ecgadv.config.place import Job, run_folder, run_name, shard_folder
from ecgadv.config.values import normalise

__all__ = [
    "Composed",
    "Job",
    "check_foreign",
    "compose_checked",
    "conf_dir",
    "normalise",
    "run_folder",
    "run_name",
    "searchpath_of",
    "shard_folder",
    "validate",
    "with_device",
]
