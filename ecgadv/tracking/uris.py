"""Where results are tracked: absolute addresses, hidden passwords, the line that opens the UI."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

from ecgadv.errors import ConfigError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of databases; a driver may follow a plus sign (``postgresql+psycopg``)."""

SERVERS = ("http", "https", "databricks")
"""Schemes of tracking servers."""


def resolve_uri(uri: str | None, root: Path) -> str:
    """The absolute address of a tracking store.

    Args:
        uri: ``tracking.uri``; ``None`` or "" means ``<root>/mlflow.db``; a path without a scheme is
            a sqlite file, and relative paths start at ``root``.
        root: ``paths.root``.

    Raises:
        ConfigError: the scheme is none that MLflow still serves (``file:`` is no longer one).
    """
    root = root.expanduser().resolve()
    if not uri:
        return sqlite_uri(root / "mlflow.db")
    if uri == "databricks":
        return uri
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+:", uri):
            raise ConfigError(f"tracking.uri={hide_password(uri)} has no '//' after its scheme")
        if (root / uri).expanduser().is_dir():
            raise ConfigError(
                f"tracking.uri={uri} is a folder; give a sqlite file in it: "
                f"{uri.rstrip('/')}/mlflow.db"
            )
        return sqlite_uri((root / Path(uri).expanduser()).resolve())
    kind = scheme.partition("+")[0].lower()
    if kind == "postgres":
        raise ConfigError(f"tracking.uri={hide_password(uri)}: write postgresql:// for postgres://")
    if kind not in (*DATABASES, *SERVERS):
        raise ConfigError(
            f"tracking.uri={hide_password(uri)}: MLflow has no store for {scheme}://; "
            "use sqlite:///FILE, postgresql://… or http://…"
        )
    if kind == "sqlite":
        path, mark, query = rest.removeprefix("/").partition("?")
        if not path:
            raise ConfigError(f"tracking.uri={uri} names no file; write sqlite:///FILE")
        if mark and not all("=" in part for part in query.split("&")):
            raise ConfigError(
                f"tracking.uri={uri}: in an address, ? begins options; give the path alone, "
                "without sqlite:///"
            )
        file = (root / Path(unquote(path)).expanduser()).resolve()
        return sqlite_uri(file, scheme, query)
    return uri


def is_database(uri: str) -> bool:
    """Whether this process opens the store itself, rather than asking a server."""
    return uri.partition("://")[0].partition("+")[0].lower() in DATABASES


def sqlite_uri(file: Path, scheme: str = "sqlite", query: str = "") -> str:
    """The address of a sqlite file, whatever characters are in its path."""
    text = str(file)
    if not re.search("[%?]", text):
        return f"{scheme}:///{text}" + (f"?{query}" if query else "")
    from sqlalchemy.engine import make_url

    text = text.replace("%", "%25").replace("?", "%3F")
    if make_url("sqlite:///%25").database != "%":
        # Older ones take the path as it stands; sqlite itself decodes that of a file: address.
        text, query = f"file:{text}", "&".join(filter(None, ["uri=true", query]))
    # MLflow makes the folder that it reads in a plain sqlite:/// address, escapes and all.
    return f"sqlite+pysqlite:///{text}" + (f"?{query}" if query else "")


def sqlite_file(uri: str) -> Path | None:
    """The file of a resolved sqlite address, else ``None``."""
    if not uri.startswith("sqlite"):
        return None
    return Path(unquote(uri.partition(":///")[2].partition("?")[0].removeprefix("file:")))


def artifact_root(root: Path) -> Path:
    """Where artifacts lie when no server keeps them."""
    return root.expanduser().resolve() / "mlartifacts"


def hide_password(uri: str) -> str:
    """The address with ``user:password@`` cut to ``user:***@``."""
    return re.sub(r"(?<=//)([^/@:\s]*):[^@/\s]*@", r"\1:***@", uri)


def ui_command(uri: str) -> str:
    """The shell line that opens the MLflow UI on a resolved address; of a server, its address.

    A password is never printed: where the address holds one, ``***`` stands in its place.
    """
    if not is_database(uri):
        return hide_password(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(hide_password(uri))}"
