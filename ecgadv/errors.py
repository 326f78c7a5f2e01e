"""The errors that reach a user as one line.

Every message names the option, the file or the record that is wrong and what would be right; no
traceback is printed for them (see ``ecgadv.cli``).
"""


class EcgadvError(Exception):
    """Base of every error whose message is meant for the user as it stands."""


class ConfigError(EcgadvError):
    """An option is unknown, out of range, or contradicts another one."""


class NothingToDoError(ConfigError):
    """Options that contradict nothing, but leave no case; a sweep leaves such a job out."""


class DataError(EcgadvError):
    """A data source is missing, unreadable or holds nothing usable."""


class RecordError(DataError):
    """One record cannot be used; the rest of its data source can."""


class VictimError(EcgadvError):
    """A victim cannot be loaded, or fails a pre-flight check."""


class StoreError(EcgadvError):
    """Results cannot be written to, or read from, a run's folder."""


class RefusedError(StoreError):
    """A folder holds results of something else; nothing was written."""


class BusyError(StoreError):
    """Another process is working on the same folder."""


class BackendError(EcgadvError):
    """The requested Keras backend is not installed, or another one is already running."""


def one_line(error: BaseException) -> str:
    """Message of any error without its line breaks; its kind where it has none."""
    return " ".join(str(error).split())[:400] or type(error).__name__
