"""What a run finds around it: a row for each environment and accident, real processes.

Every environment ends in the numbers of a plain run, or in one clear line. Environments that cannot
hide one another share a process; each row checks the whole of what it promises.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import REPO, environment, small_world, status_of, table, without_times

from ecgadv.environment import Forgiving, lost_output, settled

pytestmark = pytest.mark.slow

RUN = f"{shlex.quote(sys.executable)} {shlex.quote(str(REPO / 'run.py'))}"
MODULE = f"{shlex.quote(sys.executable)} -m ecgadv"
OPTIONS = ("target=untargeted", "attack.steps=5")


@dataclass(frozen=True)
class Done:
    """A run's end: exit status, what it printed, and its folders."""

    code: int
    out: bytes
    err: bytes
    root: Path

    @property
    def folder(self) -> Path:
        """The one run's folder."""
        (found,) = (self.root / "outputs").iterdir()
        return found


@dataclass(frozen=True)
class Row:
    """One environment.

    Attributes:
        name: what is unusual.
        group: rows of one group share a process.
        env: variables; ``{place}`` is a folder of the group's own, None unsets.
        before: shell commands in front of the run.
        redirect: of the streams.
        command: how the run is started.
        options: further overrides.
        check: what holds besides the right numbers.
    """

    name: str
    group: str
    env: dict[str, str | None] = field(default_factory=dict)
    before: str = ""
    redirect: str = ""
    command: str = ""
    options: tuple[str, ...] = ()
    check: Callable[[Done], bool] = lambda done: True


def tracked(done: Done) -> bool:
    """The run is finished in the database of ``paths.root``, in the configured experiment."""
    import sqlite3

    with sqlite3.connect(done.root / "mlflow.db") as database:
        rows = database.execute(
            "select r.status, e.name from runs r join experiments e using (experiment_id)"
        ).fetchall()
    return rows == [("FINISHED", "ecgadv")]


def mode(done: Done) -> int:
    return (done.folder / "cases.csv").stat().st_mode & 0o777


KERAS_JSON = (
    '{"floatx": "float16", "epsilon": "x", "backend": "theano", '
    '"image_data_format": "channels_first"}'
)
SHADOWS = ("keras", "numpy", "hydra", "tensorflow", "random")
IN_FOLDER = ("types", "logging", "ecgadv", "matplotlib")


def write(folder: str, name: str, text: str) -> str:
    return f"mkdir -p {folder}; printf %s {shlex.quote(text)} > {folder}/{name}; "


def modules(folder: str, names: tuple[str, ...]) -> str:
    return "".join(
        write(folder, f"{name}.py", "raise SystemExit('the wrong one')") for name in names
    )


ROWS = [
    # --- a: what is printed, and by what
    Row("latin-1", "a", {"PYTHONIOENCODING": "latin-1:strict"},
        check=lambda d: "distances of the successful cases" in d.out.decode("latin-1")),
    Row("backend of figures that is not installed", "a",
        {"MPLBACKEND": "module://matplotlib_inline.no_such_backend"},
        check=lambda d: (d.folder / "report.html").stat().st_size > 10_000),
    Row("warnings are errors", "a", {"PYTHONWARNINGS": "error"}),
    Row("keras.json of another project", "a", {"KERAS_HOME": "{place}/kh"},
        write("{place}/kh", "keras.json", KERAS_JSON)),
    Row("another KERAS_BACKEND", "a", {"KERAS_BACKEND": "theano"}),
    Row("a time zone of nowhere", "a", {"TZ": "Mars/Phobos"}),
    Row("20 columns", "a", {"COLUMNS": "20"}, check=lambda d: b"Wilson" in d.out),
    Row("colours wanted in a file", "a", {"FORCE_COLOR": "1", "TERM": "dumb"}),
    Row("Hydra's full errors", "a", {"HYDRA_FULL_ERROR": "1"}),
    Row("standard input is a file", "a", redirect="</etc/hostname"),
    Row("a GPU that is not there", "a", {"CUDA_VISIBLE_DEVICES": "7"}),
    Row("standard error on a full device", "a", redirect="2>/dev/full"),
    Row("a home that takes no file", "a", {"HOME": "/proc"}),
    # --- b: the interpreter and the machine
    Row("standard output on a full device", "b", redirect=">/dev/full",
        check=lambda d: b"note: standard output was dropped: No space left on device" in d.err),
    Row("standard input is closed", "b", redirect="<&-"),
    Row("ASCII as the language of files and texts", "b",
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Row("a path that is not ASCII", "b", check=lambda d: not str(d.folder).isascii()),
    Row("no assertions and no docstrings", "b", {"PYTHONOPTIMIZE": "2"}),
    Row("started through a link, in a safe path", "b", {"PYTHONSAFEPATH": "1", "PYTHONPATH": None},
        f"ln -sf {shlex.quote(str(REPO / 'run.py'))} " "{place}/link.py; ",
        command=shlex.quote(sys.executable) + " {place}/link.py"),
    Row("modules of the standard library in the folder", "b",
        before=modules("{place}/w", IN_FOLDER)),
    Row("a home that is not there", "b", {"HOME": "/nonexistent"}),
    Row("a TMPDIR that is not there", "b", {"TMPDIR": "/nonexistent"}),
    Row("threads that are no number", "b", {"OMP_NUM_THREADS": "many"}),
    Row("files for oneself", "b", before="umask 077; ", check=lambda d: mode(d) == 0o600),
    Row("64 open files", "b", before="ulimit -n 64; "),
    Row("variables of another MLflow", "d",
        {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_RUN_ID": "0123",
         "MLFLOW_EXPERIMENT_NAME": "other", "MLFLOW_EXPERIMENT_ID": "77"},
        options=("tracking=mlflow",), check=tracked),
    # --- c: nothing to print on
    Row("all streams are closed", "c", redirect="<&- >&- 2>&-"),
    Row("as a module beside namesakes of packages", "c", before=modules("{place}/w", SHADOWS),
        command=MODULE, check=lambda d: (d.folder / "report.html").is_file()),
    Row("no home, no cache", "c",
        {"HOME": None, "XDG_CACHE_HOME": "/dev/null/x", "ECGADV_CACHE": None},
        options=("paths.data=null",)),
    Row("a keras.json that is broken", "c", {"KERAS_HOME": "{place}/kh"},
        write("{place}/kh", "keras.json", "[1, {")),
    Row("TensorFlow with its old Keras", "c", {"TF_USE_LEGACY_KERAS": "1"}),
    Row("threads below none", "c", {"OMP_NUM_THREADS": "-1"}),
    Row("a decimal comma", "c", {"LANG": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"}),
    Row("files for everybody", "c", before="umask 000; ", check=lambda d: mode(d) == 0o666),
    # --- d: nobody listens
    Row("a closed pipe", "d", redirect="| head -1",
        check=lambda d: d.out.count(b"\n") == 1 and d.err.count(b"Error") == 0),
    Row("ASCII, strictly", "d", {"PYTHONIOENCODING": "ascii:strict"},
        check=lambda d: d.out.isascii() and d.err.isascii()),
    Row("no bytecode, another order of hashes", "d",
        {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "77"}),
    Row("no colours", "d", {"NO_COLOR": "1"}),
    Row("a working folder that takes no file", "d", before="cd /proc; "),
    Row("columns that are no number", "d", {"COLUMNS": "wide"}),
    Row("steps from the environment", "d", {"STEPS": "5"},
        options=("attack.steps=${oc.env:STEPS}",),
        check=lambda d: '"steps": 5,' in (d.folder / "config.json").read_text(encoding="utf-8")),
]  # fmt: skip

GROUPS = sorted({row.group for row in ROWS})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> list[str]:
    return [*small_world(tmp_path_factory.mktemp("world")), *OPTIONS]


def start(rows: list[Row], world: list[str], place: Path) -> Done:
    """Run what all rows of a group ask for, in one process."""
    work, root = place / "w", place / "läufe"
    work.mkdir()
    env = environment()
    for name, value in (item for row in rows for item in row.env.items()):
        env.pop(name, None)
        if value is not None:
            env[name] = value.replace("{place}", str(place))
    options = [*world, f"paths.root='{root}'", *(o for row in rows for o in row.options)]
    by_key = {option.partition("=")[0]: shlex.quote(option) for option in options}
    line = " ".join(
        [
            "".join(row.before for row in rows) + next((r.command for r in rows if r.command), RUN),
            *by_key.values(),
            *(row.redirect for row in rows),
        ]
    )
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("{place}", str(place))],
        cwd=work, env=env, capture_output=True, timeout=280, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr, root)


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory) -> Done:
    return start([], world, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> Callable[[str], Done]:
    """The run of a group, made once."""
    made: dict[str, Done] = {}

    def of(group: str) -> Done:
        if group not in made:
            rows = [row for row in ROWS if row.group == group]
            made[group] = start(rows, world, tmp_path_factory.mktemp(group))
        return made[group]

    return of


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_run_ends_with_the_right_numbers(plain, runs, row):
    done = runs(row.group)
    assert done.code == 0, done.err[-2000:]
    assert status_of(done.folder)["status"] == "finished"
    assert without_times(table(done.folder)) == without_times(table(plain.folder))
    assert len(table(done.folder)) == 6
    assert row.check(done)


# --- accidents that end in one line ---------------------------------------------------------------

LINES = [
    ("a folder that was deleted", f"mkdir gone; cd gone; rmdir ../gone; {RUN}",
     "error: the folder that this command was started in is no longer there; cd to another one"),
    ("the same, as a module", f"mkdir gone; cd gone; rmdir ../gone; {MODULE}",
     "error: the folder that this command was started in is no longer there; cd to another one"),
    ("what is shown, on a full device", f"{RUN} --cfg job >/dev/full",
     "error: standard output cannot be written: No space left on device"),
    ("help, with standard output closed", f"{RUN} --help >&-",
     "error: standard output cannot be written: it is closed"),
    ("a mistake, told in ASCII", f"PYTHONIOENCODING=ascii:strict {RUN} metric=l3",
     "error: metric=l3: there is no such option; did you mean l2? (diff, diffl2, l2)"),
    ("a mistake in letters that ASCII lacks", f"PYTHONIOENCODING=ascii {RUN} \"metric='größe'\"",
     "error: metric=grosse: there is no such option; the nearest is diff (diff, diffl2, l2)"),
    ("a mistake, nobody to tell", f"{RUN} metric=l3 2>&-", None),
    ("a mistake, told to a full device", f"{RUN} metric=l3 2>/dev/full", None),
    ("warnings as errors and a mistake", f"PYTHONWARNINGS=error {RUN} metric=l3",
     "error: metric=l3: there is no such option; did you mean l2? (diff, diffl2, l2)"),
    ("no value in the environment", f"{RUN} 'attack.steps=${{oc.env:NO_SUCH}}'",
     "error: attack.steps: KeyError raised while resolving interpolation: \"Environment variable "
     "'NO_SUCH' not found\""),
    ("a word in the environment", f"S=many {RUN} 'attack.steps=${{oc.env:S}}'",
     "error: attack.steps=many: must be a whole number, at least 2, or auto"),
    ("threads that are no number", f"ECGADV_THREADS=many {RUN} paths.root=.",
     "error: ECGADV_THREADS=many: must be a whole number, at least 1"),
    ("the home of nobody", f"{RUN} \"paths.root='~nobody-here/x'\"",
     "error: ~nobody-here/x: nobody's home folder is known by that name"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line", "said"), LINES, ids=[name for name, *_ in LINES])
def test_an_accident_is_one_line(tmp_path, name, line, said):
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == ([] if said is None else [said])
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"KERAS_BACKEND": "theano"}, "theano"),
        ({"KERAS_HOME": "{place}"}, "epsilon"),
    ],
    ids=["backend", "keras.json"],
)
def test_a_keras_that_does_not_start_is_one_line_of_the_interface(tmp_path, env, message):
    (tmp_path / "keras.json").write_text(KERAS_JSON)
    code = (
        "import ecgadv\nfrom ecgadv import errors\n"
        "try: ecgadv.load_victim('compact')\n"
        "except errors.BackendError as error: print(error)"
    )
    more = {name: value.replace("{place}", str(tmp_path)) for name, value in env.items()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**more), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    assert line.startswith("Keras cannot be imported (")
    assert message in line
    assert "look at KERAS_BACKEND" in line
    assert "keras.json" in line


# --- streams --------------------------------------------------------------------------------------

TEXT = "20 – 30 % … × δ ≥ ± → ä é µV ß ø ✓ 心"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"20 - 30 % ... x delta >= +/- -> a e uV ss o ? ?"),
        ("latin-1", b"20 - 30 % ... \xd7 delta >= \xb1 -> \xe4 \xe9 \xb5V \xdf \xf8 ? ?"),
        ("cp1252", b"20 \x96 30 % \x85 \xd7 delta >= \xb1 -> \xe4 \xe9 \xb5V \xdf \xf8 ? ?"),
        ("utf-8", TEXT.encode()),
    ],
)
def test_what_an_encoding_lacks_is_spelled_in_ascii(encoding, expected):
    raw = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    print(TEXT, end="", file=stream, flush=True)
    assert raw.getvalue() == expected


def test_the_bytes_of_a_name_that_is_no_text_stay():
    raw = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(raw, encoding="utf-8"))
    print(os.fsdecode(b"r\xff"), end="", file=stream, flush=True)
    assert raw.getvalue() == b"r\xff"


def test_handlers_that_cannot_fail_are_left_alone():
    raw = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(raw, encoding="ascii", errors="xmlcharrefreplace"))
    print("–", end="", file=stream, flush=True)
    assert raw.getvalue() == b"&#8211;"


def test_a_stream_that_cannot_be_written_is_dropped_and_the_reason_kept(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with settled():
            assert lost_output() is None
            print("x" * 100_000)
            print("y", flush=True)
            assert "No space left" in str(lost_output())
        assert sys.stdout is full


def test_a_closed_stream_is_no_error():
    stream = Forgiving(io.StringIO())
    stream.close()
    stream.write("nobody")
    stream.writelines(["reads", "this"])
    stream.flush()
    assert stream.lost is None


def test_variables_and_streams_are_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "mine")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    before = sys.stdout, sys.stderr
    with settled(), settled():
        assert os.environ["MPLBACKEND"] == "agg"
        assert "PYTHONWARNINGS" not in os.environ
        assert "KERAS_HOME" in os.environ
    assert os.environ["MPLBACKEND"] == "mine"
    assert os.environ["PYTHONWARNINGS"] == "error"
    assert "KERAS_HOME" not in os.environ
    assert (sys.stdout, sys.stderr) == before


def test_a_sweep_whose_output_is_lost_does_all_jobs(world, tmp_path):
    line = (
        f"{RUN} -m {' '.join(map(shlex.quote, world))} paths.root={tmp_path} metric=l2,diff "
        "hydra/launcher=joblib hydra.launcher.n_jobs=1 >/dev/full"
    )
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = subprocess.run(
        ["bash", "-c", line], env=environment(PYTHONWARNINGS="error", MPLBACKEND="none such"),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (sweep,) = (tmp_path / "multirun_outputs").iterdir()
    found = [status_of(file.parent)["status"] for file in sweep.glob("*/status.json")]
    assert found == ["finished", "finished"]
    assert "note: standard output was dropped: No space left on device" in done.stderr
