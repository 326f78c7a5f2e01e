"""The command line: check everything, then let Hydra start one job or a sweep of them.

Exit status: 0 all is well; 2 a mistake in the command line, the data or the victim, or a full disk;
1 an unexpected error, or a job of a sweep that did not finish; 130 and 143 interrupted by Ctrl-C
and by SIGTERM; 141 where ``--help`` and its like print into a closed pipe. What becomes of the
output of a run changes neither its results nor its status.
"""

from ecgadv.cli.command import main
from ecgadv.cli.jobs import run_task
from ecgadv.cli.status import read_status
from ecgadv.cli.stopping import BROKEN_PIPE, INTERRUPTED, TERMINATED

__all__ = ["BROKEN_PIPE", "INTERRUPTED", "TERMINATED", "main", "read_status", "run_task"]
