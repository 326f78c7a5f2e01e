"""What people look at: figures, tables, and a self-contained report of a run or a sweep."""

from ecgadv.report.pictures import write_figures
from ecgadv.report.tables import distances_table, success_table
from ecgadv.report.write import write_report, write_sweep_report

__all__ = [
    "distances_table",
    "success_table",
    "write_figures",
    "write_report",
    "write_sweep_report",
]
