"""Names stay as they are written: 1e3, 10_1 and true are names of records, not numbers.

Hydra's grammar and YAML read them as numbers and booleans, and a number does not tell how it was
written. So names are put into quotes before Hydra reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ecgadv.config import hydra_api
from ecgadv.errors import ConfigError
from ecgadv.records.labels import is_kept, text_of

NAMES = ("selection.records", "selection.source", "victim.classes", "target")
"""Keys whose value is a name or a list of names."""

TEXTS = (
    "paths.root", "paths.data", "paths.outputs", "data.root", "data.labels", "data.key",
    "victim.path", "victim.preprocess", "selection.file", "sweep", "report.run", "track.run",
    "evaluate.run", "evaluate.study", "evaluate.study_key", "benchmark.out", "tracking.uri",
    "tracking.experiment", "data.units", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
"""Keys whose value is one text: a path, or what somebody called something."""

LEAD = "data.lead"
"""A name, or a number that is a position; or a list of them."""

LABELS = "data.label_map"
"""A mapping from labels of a file, which are texts too."""

_SWEEPS = ("choice", "shuffle", "sort")
"""Functions of Hydra's grammar whose arguments are the values themselves."""

_TOKEN = re.compile(r"(?:\\.|\$\{[^}]*\}|[^\[\](){},'\"\\$]|\$)+")


_PLAIN = re.compile(r"(?:\\.|[^\[\]{},\"\\$])+")
"""A text with brackets or an apostrophe in it, up to the next comma."""


def keep_names(line: str) -> str:
    """An override with quotes around every name that Hydra would read as something else.

    Args:
        line: one argument of the command line, ``key=value``.

    Raises:
        ConfigError: a key of ``data.label_map`` that cannot be kept as it is written.
    """
    key, equals, value = line.partition("=")
    path = key.strip().lstrip("+~")
    if equals and path in (*NAMES, *TEXTS, LEAD):
        # Of a list a whole number tells how it was written; one text must be a text.
        return f"{key}={''.join(_quoted(value, path == 'target' or path in TEXTS))}"
    if equals and path == LABELS:
        return f"{key}={_plain_labels(value)}"
    return line


def quote(name: str) -> str:
    """A name in quotes, as Hydra's grammar has them."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def _quoted(value: str, only_text: bool) -> Iterator[str]:
    at = 0
    while at < len(value):
        if value[at] in "'\"":
            end = _after_quotes(value, at)
            yield value[at:end]
        elif (match := _TOKEN.match(value, at)) is not None:
            end = match.end()
            token = match[0]
            calls = value[end : end + 1] == "(" and token.strip().isidentifier()
            if calls and token.strip() not in _SWEEPS:
                # A cast, a range or a glob: what it holds is not ours.
                end = _after_brackets(value, end)
                yield value[at:end]
            elif calls or ("=" in token and "(" in value[:at]) or "$" in token:
                yield token
            elif (
                only_text
                and "(" not in value[:at]
                and value[end : end + 1] in ("(", "'")
                and (whole := _PLAIN.match(value, at)) is not None
            ):
                # A path may hold what the grammar has other uses for: /data (1), /it's.
                end = whole.end()
                yield _name(whole[0], False, True)
            else:
                yield _name(token, "[" in value[:at], only_text)
        else:
            end = at + 1
            yield value[at]
        at = end


def _name(token: str, inside: bool, only_text: bool) -> str:
    """A name as it stands, or in quotes where Hydra would not give it back as it stands."""
    text = token.strip()
    if not text or (text.lower() == "null" and not inside):
        return token
    try:
        value = hydra_api.read_override(f"name={text}").value()
    except Exception:
        # The grammar has letters beyond ASCII in quotes only; whoever composes says what else
        # is wrong.
        is_ours = only_text or not text.isascii()
        return token.replace(text, quote(text)) if is_ours else token
    is_plain = type(value) is int and str(value) == text and not only_text
    return token if isinstance(value, str) or is_plain else token.replace(text, quote(text))


def _after_quotes(value: str, at: int) -> int:
    """Position behind the quotes that open at ``at``."""
    end = at + 1
    while end < len(value) and value[end] != value[at]:
        end += 2 if value[end] == "\\" else 1
    return min(end + 1, len(value))


def _after_brackets(value: str, at: int) -> int:
    """Position behind the brackets that open at ``at``."""
    depth = 0
    while at < len(value):
        if value[at] in "'\"":
            at = _after_quotes(value, at)
            continue
        depth += {"(": 1, ")": -1}.get(value[at], 0)
        at += 1
        if depth == 0:
            break
    return at


_LABEL = re.compile(
    r"(?P<start>[{,]\s*)(?:'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<bare>[^'\"{},:\\]+?))(?=\s*:)"
)
"""A key of a label map on the command line, and what stands before it."""


def _plain_labels(value: str) -> str:
    """A label map without quotes around its keys, which the grammar does not take."""
    seen: set[str] = set()

    def plain(match: re.Match[str]) -> str:
        bare = match["bare"]
        label = bare.strip() if bare is not None else match["single"] or match["double"] or ""
        if not is_kept(label):
            raise ConfigError(
                f"{LABELS}={value}: {label} would be read as another number; write the map into a "
                "yaml file of yours, with quotes around it"
            )
        if not label.isascii():
            raise ConfigError(
                f"{LABELS}={value}: a command line cannot hold the label {label}; write the map "
                "into a yaml file of yours"
            )
        if label.lower() == "null":
            raise ConfigError(f"{LABELS}={value}: null is no label; write noise for the class ~")
        if text_of(label) in seen:
            raise ConfigError(f"{LABELS}={value}: label {text_of(label)} stands there twice")
        seen.add(text_of(label))
        if bare is None:
            label = "noise" if label == "~" else re.sub(r"([\\()\[\]{}:=,\t])", r"\\\1", label)
        return f"{match['start']}{label}"

    return _LABEL.sub(plain, value)


def names_in_files(files: Iterable[Path], path: str, value: Any) -> list[str] | None:
    """Names as yaml files spell them, of a list (or the keys of a mapping) that was read there.

    Args:
        files: of the composition, in order; those that are missing are left out.
        path: dotted key of the value.
        value: what was read.

    Returns:
        The texts in the files, or None where no file holds such a value.
    """
    import yaml

    found = None
    for file in files:
        try:
            loader = hydra_api.yaml_loader()(file.read_text(encoding="utf-8"))
            root = loader.get_single_node()
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        for node in _nodes(root, path.rpartition(".")[2]):
            try:
                read = loader.construct_object(node, deep=True)
            except yaml.YAMLError:
                continue
            items = node.value if isinstance(node, yaml.SequenceNode) else []
            if isinstance(node, yaml.MappingNode):
                items = [key for key, _ in node.value]
            if read == value and all(isinstance(item, yaml.ScalarNode) for item in items):
                found = [str(item.value) for item in items]
    return found


def _nodes(node: Any, name: str) -> Iterator[Any]:
    """Every value that stands under a key of that name, at any depth."""
    for key, value in getattr(node, "value", None) or [] if _is_mapping(node) else []:
        if str(getattr(key, "value", "")).rpartition(".")[2] == name:
            yield value
        yield from _nodes(value, name)


def _is_mapping(node: Any) -> bool:
    return getattr(node, "id", "") == "mapping"


def check_names(path: str, value: Any, written: list[str] | None) -> None:
    """Refuse names that were read as another number or as a boolean.

    Args:
        path: dotted key of the value.
        value: a list of names, or a mapping whose keys are labels.
        written: the texts in the file, where they are known.

    Raises:
        ConfigError: one of them is not what was written.
    """
    items = list(value) if isinstance(value, list | Mapping) else [value]
    for place, item in enumerate(items):
        text = written[place] if written is not None and len(written) == len(items) else None
        if text is not None and text_of(text) == text_of(item):
            continue
        if text is None and (isinstance(item, str | int) and not isinstance(item, bool)):
            continue
        if text is None and isinstance(value, Mapping):
            continue
        raise ConfigError(
            f"{path}: YAML reads {text or 'a name'} as {item!r}, which is no text; put it in quotes"
        )
