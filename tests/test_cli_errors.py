"""Mistakes and mishaps on the command line: one line, an exit status, a status file."""

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import pytest

from ecgadv import cli, config
from ecgadv.cli import sweeps
from ecgadv.errors import DataError, EcgadvError

REPO = Path(__file__).resolve().parents[1]

MISTAKES = [
    # options and keys
    ("metric=l3", "metric=l3: there is no such option; did you mean l2?"),
    ("metric=null", "metric=null: there is no such option"),
    ("metric=[l2,diff]", "-m metric=l2,diff"),
    ("metric@other=l2", "write metric=OPTION, without @"),
    ("+metric=l2", "metric is there already, leave the + out"),
    ("victim=resnet", "did you mean resnet34?"),
    ("target=AF", "target=AF: there is no such option"),
    ("experiment=type1_tabel", "did you mean type1_table?"),
    ("atack=cw", "atack: there is no such key; did you mean attack?"),
    ("attack.stepz=3", "did you mean attack.steps?"),
    ("steps=3", "did you mean attack.steps?"),
    ("attack.kappa=1", "attack=minnorm has no such key"),
    ("+attack.kappa=1", "attack=minnorm has no such key"),
    ("+nonsense=1", "nonsense: there is no such key"),
    ("++nonsense=1", "nonsense: there is no such key"),
    ("nonsense.deeper=1", "nonsense.deeper: there is no such key"),
    ("+attack.steps=3", "attack.steps is there already"),
    ("attack={stepz:3}", "set one of its keys"),
    ("paths={root:x,rot:y}", "set one of its keys"),
    ("~attack.steps", "nothing can be taken out"),
    ("train.epochs=3", "without task=train"),
    ("tracking=none tracking.uri=x", "tracking=none has no such key"),
    ("selection.per_class.A=3", "write selection.per_class={A:VALUE,…}"),
    ("data=wfdb data.root=. data.label_map.AFIB=A", "data.label_map"),
    # what is not an override
    ("metric", "metric: must be written as key=value"),
    ("=3", "must be written as key=value"),
    ("selection.source=[~]", "write noise for the class ~"),
    ("data.root=~/records", "records: data=synthetic reads no file"),
    ("data.root=a=b", "a=b: data=synthetic reads no file"),
    ("--nonsense", "unrecognized arguments: --nonsense"),
    ("--cfg nonsense", "invalid choice"),
    ("--resolve", "--resolve goes with --cfg"),
    ("-m --cfg job", "only one of them"),
    ("--config-dir /nope", "there is no such folder"),
    ("--experimental-rerun x.pickle", "refused"),
    ("hydra.verbos=true", "did you mean hydra.verbose?"),
    ("hydra/launcher=bsic", "did you mean basic?"),
    ("hydra.searchpath=[file:///nope]", "/nope: there is no such folder"),
    ("seed=${nope}", "seed: "),
    # values
    ("batch_size=0", "batch_size=0: must be a whole number, at least 1, or auto"),
    ("batch_size=2.5", "batch_size=2.5: must be a whole number"),
    ("batch_size=true", "batch_size=true: must be a whole number"),
    ("precision=fp8", "precision=fp8: must be one of auto, float32, bfloat16"),
    ("backend=theano", "backend=theano: must be one of tensorflow, jax, torch"),
    ("seed=x", "seed=x: must be a whole number"),
    ("seed=-1", "seed=-1: must be a whole number, from 0"),
    ("resume=maybe", "resume=maybe: must be true or false"),
    ("window=0", "window=0: must be a number of samples, at least 1"),
    ("window=long", "window=long: must be a number of samples"),
    ("attack.steps=0", "attack.steps=0: must be"),
    ("attack.first_step=x", "attack.first_step=x: must be a number"),
    ("attack=cw attack.learning_rate=0", "attack.learning_rate=0: must be a number above 0"),
    ("attack=cw attack.perturb_padding=1", "attack.perturb_padding=1: must be true or false"),
    ("evaluation.order=both", "must be one of shift_filter, filter_shift"),
    ("tracking.system_metrics=maybe", "must be true or false"),
    ("tracking.uri=file:///runs", "tracking.uri=file:///runs"),
    ("task=train train.fold=5", "train.fold=5: must be below train.folds=5"),
    (
        "task=train train.epochs=2 train.short_epochs=2",
        "train.short_epochs=2: must be below train.epochs=2",
    ),
    ("task=train train.epochs=0", "train.epochs=0: must be"),
    ("threat_model=type2 window=0", "window=0: must be a number of samples, at least 1"),
    (
        "threat_model=type2 window=9001",
        "window=9001: must last at least one sample and at most",
    ),
    ("threat_model=type2 window=40s", "window=40s: must last at least one sample and at most"),
    ("threat_model=type2 window=0s", "window=0s: must last at least one sample"),
    ("threat_model=type2 filter.high_pass=150", "filter.high_pass=150: must be above 0 and below"),
    ("threat_model=type2 filter.mains=[50,400]", "filter.mains=[50,400]: must be above 0"),
    ("threat_model=type2 evaluation.mains=[200]", "evaluation.mains=[200]: must be above 0"),
    ("threat_model=type2 evaluation.high_pass=0", "evaluation.high_pass=0: must be a number above"),
    ("threat_model=type2 attack.schedule=fast", "attack.schedule=fast: must be one of budget, pap"),
    ("threat_model=type2 attack.power=0", "attack.power=0: must be a number above 0"),
    ("threat_model=type2 attack.lowest_power=-1", "attack.lowest_power=-1: must be a number of"),
    ("threat_model=type2 attack.band=[40,1]", "attack.band=[40,1]: must be two numbers"),
    ("threat_model=type2 eot.shifts=0", "eot.shifts=0: must be"),
    ("threat_model=type2 universal=true attack=minnorm", "universal=true attack=minnorm: needs"),
    ("attack=eot", "attack=eot is for injected signals: it needs threat_model=type2"),
    ("filter=rectangular", "filter=rectangular is for injected signals"),
    ("window=10s", "window=10s is for injected signals"),
    ("universal=true", "universal=true is for injected signals"),
    # selections
    ("target=N selection.source=[N]", "target=N selection.source=[N]: nothing to attack"),
    ("target=noise selection.source=noise", "selection.source=[noise]: nothing to attack"),
    ("target=N selection.per_class={N:3}", "selection.per_class={N:3}: nothing to attack"),
    ("selection.per_class={N:0}", "no record is left"),
    ("selection.source=[X]", "unknown class 'X'"),
    ("selection.source=[]", "name at least one"),
    ("selection.per_class=0", "selection.per_class=0"),
    ("selection.split=test", "selection.split=test"),
    ("selection.start=3", "selection.start=3"),
    ("selection.file=/nope.csv", "selection.file=/nope.csv: there is no such file"),
    # data and victims
    ("data=cinc2017 data.root=/nope", "data.root=/nope: there is no such file or folder"),
    ("data=cinc2017 data.root={text}", "is not a zip file"),
    ("data=wfdb", "data=wfdb needs data.root"),
    ("data=wfdb data.root={text}", "must be the folder of the records"),
    ("data=arrays", "data=arrays needs data.root"),
    ("data=arrays data.root={text}", "must be an .npz or .csv file"),
    ("data=arrays data.root={npz}", "is not an .npz file"),
    ("data.root={text}", "data=synthetic reads no file"),
    ("victim=keras", "victim=keras needs victim.path=FILE.keras"),
    ("victim=torch", "victim=torch needs victim.path=FILE.pt"),
    ("victim=keras victim.path=/nope.keras", "/nope.keras: there is no such file"),
    ("victim=keras victim.path={folder}", "is a folder, not a model file"),
    ("victim=keras victim.path={text}", "must be a .keras, .h5 or .hdf5 file"),
    ("victim=keras victim.path={keras}", "is not a Keras model"),
    ("victim=keras victim.path={h5}", "is not a Keras model"),
    # folders and tasks
    ("paths.root={text}", "is a file, a folder is needed there"),
    ("paths.root={text}/below", "is a file, a folder is needed there"),
    ("paths.outputs={text}", "is a file, a folder is needed there"),
    ("hydra.run.dir={text}", "is a file, a folder is needed there"),
    ("task=report", "report.run=FOLDER"),
    ("task=report sweep=/nope", "sweep=/nope: there is no such folder"),
    ("task=track tracking=none", "task=track tracking=none"),
    # sweeps
    ("metric=l2,diff", "metric=l2,diff: several values; add -m"),
    ("-m metric=l2,l3", "metric=l3: there is no such option"),
    ("-m metric=l2,diff batch_size=1,0", "batch_size=0: must be"),
    ("-m attack=cw,minnorm attack.kappa=1", "attack=minnorm has no such key"),
    ("-m seed=interval(0,1)", "seed=interval(0,1)"),
    ("-m hydra.verbose=true,false", "hydra.verbose"),
    # attacks and benchmarks
    ("task=benchmark benchmark.metrics=[l3]", "must be a list of l2, diff, diffl2"),
    ("task=benchmark benchmark.per_class=0", "benchmark.per_class=0: must be"),
    ("attack=pgd attack.budget=0", "attack.budget=0: must be a number above 0"),
    ("attack=ch_pgd backend=torch", "cleverhans needs backend=tensorflow"),
]


@pytest.fixture(autouse=True)
def logging_as_before():
    """Hydra sets the root logger up for a process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Files that are not what their names or options say."""
    monkeypatch.chdir(tmp_path)
    content = {"text": "a.txt", "npz": "a.npz", "keras": "a.keras", "h5": "a.h5"}
    for name in content.values():
        (tmp_path / name).write_text("no such thing")
    (tmp_path / "folder.keras").mkdir()
    return {k: str(tmp_path / v) for k, v in content.items()} | {
        "folder": str(tmp_path / "folder.keras")
    }


def filled(argv, places):
    """Arguments with {text} and its like replaced."""
    for name, path in places.items():
        argv = argv.replace(f"{{{name}}}", path)
    return argv.split(" ")


@pytest.mark.parametrize(("argv", "message"), MISTAKES, ids=[argv for argv, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_it(places, argv, message):
    with pytest.raises(EcgadvError) as caught:
        config.compose_checked(filled(argv, places))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(EcgadvError, match="no permission to write"):
        config.compose_checked([f"paths.root={tmp_path}/closed/below"])


def start(argv, tmp_path, **kwargs):
    """Run the command line of the checkout in another process."""
    return subprocess.run(
        [sys.executable, str(REPO / "run.py"), *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **kwargs,
    )


@pytest.mark.parametrize(
    "argv",
    [
        "metric=l3",
        "+nonsense=1",
        "target=N selection.source=[N]",
        "data=cinc2017 data.root=/nope",
        "data=cinc2017 data.root={text}",
        "batch_size=0",
        "paths.root={text}",
        "-m metric=l2,l3",
        "hydra.searchpath=[file:///nope]",
        "paths.root=/proc/nowhere",
    ],
)
def test_the_process_says_one_line_and_ends_in_time(places, tmp_path, argv):
    before = time.monotonic()
    done = start(filled(argv, places), tmp_path)
    seconds = time.monotonic() - before
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert seconds < 5


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--help"], "metric: diff, diffl2, l2"),
        (["--cfg", "job"], "threat_model: type1"),
        (["--cfg", "job", "threat_model=type2"], "threat_model: type2"),
        (["--cfg", "job", "-p", "attack", "attack=cw"], "kappa: 0.0"),
        (["--cfg", "hydra"], "    chdir: false"),
        (["--info", "searchpath"], "| main "),
        (["--hydra-help"], "hydra/launcher: "),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_hydra_shows_is_shown(tmp_path, monkeypatch, capsys, argv, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 0
    shown = capsys.readouterr()
    assert line in shown.out
    assert shown.err == ""
    assert list(tmp_path.iterdir()) == []


def test_help_is_short_and_has_the_groups_and_three_examples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert sum(line.startswith("  python run.py") for line in lines) == 3


def test_a_closed_pipe_is_no_error(tmp_path):
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} {REPO}/run.py --cfg job | head -1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, cli.BROKEN_PIPE)
    assert (done.stdout, done.stderr) == ("task: attack\n", "")


# --- what happens in a job ------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A stand-in for ``ecgadv.tasks.attack``; set its ``run`` to what the job shall do."""
    monkeypatch.chdir(tmp_path)
    package = types.ModuleType("ecgadv.tasks")
    package.__path__ = []
    module = types.ModuleType("ecgadv.tasks.attack")
    module.run = lambda cfg, folder: 0
    monkeypatch.setitem(sys.modules, "ecgadv.tasks", package)
    monkeypatch.setitem(sys.modules, "ecgadv.tasks.attack", module)
    monkeypatch.setattr("ecgadv.backend.configure", lambda name: None)
    return module


def run(*argv):
    """The command line in this process, without MLflow."""
    return cli.main([*argv, "tracking=none"])


def only_folder(tmp_path):
    """The one run's folder."""
    (folder,) = (tmp_path / "outputs").iterdir()
    return folder


def test_a_job_gets_absolute_paths_and_ends_as_finished(task, tmp_path):
    seen = {}

    def attack(cfg, folder):
        status = json.loads((folder / "status.json").read_text())
        seen.update(cfg=cfg, folder=folder, status=status["status"], cwd=Path.cwd())
        return 0

    task.run = attack
    assert run("metric=diff", "paths.root=x") == 0
    assert seen["status"] == "running"
    assert seen["cwd"] == tmp_path
    assert seen["cfg"]["paths"]["root"] == str(tmp_path / "x")
    assert seen["cfg"]["metric"]["name"] == "diff"
    assert seen["folder"].parent == tmp_path / "x" / "outputs"
    assert json.loads((seen["folder"] / "status.json").read_text())["status"] == "finished"
    assert (seen["folder"] / ".hydra" / "config.yaml").is_file()
    assert cli.read_status(seen["folder"])["status"] == "finished"


def test_a_nonzero_task_is_a_failed_job(task, tmp_path):
    task.run = lambda cfg, folder: 3
    assert run() == 3
    assert cli.read_status(only_folder(tmp_path)) == {
        "status": "failed",
        "message": "exit status 3",
    }


def numpy_partial_write():
    """What ``np.save`` raises where the disk fills up while it writes."""
    return OSError("90000 requested and 1024 written")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (lambda: DataError("record A1: flat\nline"), 2, "error: record A1: flat line"),
        (lambda: OSError(errno.ENOSPC, "No space left on device", "x.npz"), 2, "no space left"),
        (lambda: OSError(errno.EDQUOT, "Disk quota exceeded", "x.npz"), 2, "no space left"),
        (numpy_partial_write, 2, "no space left"),
        (
            lambda: PermissionError(errno.EACCES, "Permission denied", "y"),
            2,
            "y: Permission denied",
        ),
        (lambda: ValueError("two\nlines"), 1, "error: ValueError: two lines (details: "),
        (lambda: MemoryError("8 GiB"), 1, "error: out of memory: try a smaller batch_size"),
        (lambda: OSError("strange"), 1, "error: OSError: strange"),
    ],
    ids=["data", "full", "quota", "partial", "permission", "bug", "memory", "strange"],
)
def test_an_error_in_a_job_is_one_line(task, tmp_path, capsys, error, code, message):
    def attack(cfg, folder):
        raise error()

    task.run = attack
    assert run() == code
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
    folder = only_folder(tmp_path)
    status = cli.read_status(folder)
    assert status["status"] == "failed"
    assert status["message"]
    assert (folder / "error.log").exists() == (code == 1)
    if code == 1:
        assert "Traceback" in (folder / "error.log").read_text()
    # The next try starts clean.
    task.run = lambda cfg, folder: 0
    assert run() == 0
    assert not (folder / "error.log").exists()


def test_a_disk_that_is_full_from_the_start_is_one_line(task, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "config.yaml")

    monkeypatch.setattr("hydra.core.utils._save_config", full)
    assert run() == 2
    assert capsys.readouterr().err.startswith("error: no space left on the disk of config.yaml")


def interrupt(cfg, folder):
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def terminate(cfg, folder):
    """What a scheduler does."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    return 0


@pytest.mark.parametrize(
    ("attack", "code"), [(interrupt, 130), (terminate, 143)], ids=["interrupt", "terminate"]
)
def test_an_interrupted_job_is_killed_and_stops_a_sweep(task, tmp_path, capsys, attack, code):
    before = signal.getsignal(signal.SIGTERM)
    task.run = attack
    assert run() == code
    assert cli.read_status(only_folder(tmp_path))["status"] == "killed"
    assert run("-m", "metric=l2,diff") == code
    assert "1 of 2 jobs did not begin" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    task.run = lambda cfg, folder: 0
    assert run("-m", "metric=l2,diff") == 0


def test_output_that_nobody_reads_ends_a_job_as_killed(task, tmp_path, monkeypatch):
    def attack(cfg, folder):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    # The stand-in has no file descriptor, so that of the test run is left alone.
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    task.run = attack
    assert run() == cli.BROKEN_PIPE
    assert cli.read_status(only_folder(tmp_path))["status"] == "killed"


def test_a_failing_job_does_not_stop_the_others(task, tmp_path, capsys):
    def attack(cfg, folder):
        if cfg["metric"]["name"] == "diff":
            raise DataError("nothing to read")
        return 0

    task.run = attack
    assert run("-m", "metric=l2,diff,diffl2") == 1
    shown = capsys.readouterr()
    assert shown.err == "error: 1_metric-diff: nothing to read\n"
    (sweep,) = (tmp_path / "multirun_outputs").iterdir()
    found = {p.name: cli.read_status(p)["status"] for p in sweep.iterdir() if p.is_dir()}
    assert found == {
        "0_metric-l2": "finished",
        "1_metric-diff": "failed",
        "2_metric-diffl2": "finished",
    }
    for name, status in found.items():
        assert any(line.split()[:2] == [name, status] for line in shown.out.splitlines())
    task.run = lambda cfg, folder: 0
    assert run("-m", "metric=l2,diff,diffl2") == 0
    assert len(list((tmp_path / "multirun_outputs").iterdir())) == 1


def test_a_job_that_was_killed_outright_is_said_to_have_died(tmp_path, capsys):
    for name, status in (("0_a", "finished"), ("1_b", "running")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"status": status, "message": ""}))
    assert sweeps._summary(tmp_path, 3) == 1
    shown = capsys.readouterr().out
    assert "1_b  died" in shown
    assert "1 of 3 jobs did not begin" in shown


def test_a_swept_path_gives_plain_job_folders(task, tmp_path):
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("x", "")
    roots = ",".join(str(tmp_path / f"{n}.zip") for n in "ab")
    assert run("-m", "data=cinc2017", f"data.root={roots}", "seed=1") == 0
    (sweep,) = (tmp_path / "multirun_outputs").iterdir()
    assert sorted(p.name for p in sweep.iterdir() if p.is_dir()) == ["0", "1"]


def test_a_task_that_is_not_there_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ecgadv.backend.configure", lambda name: None)
    package = types.ModuleType("ecgadv.tasks")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "ecgadv.tasks", package)
    monkeypatch.delitem(sys.modules, "ecgadv.tasks.attack", raising=False)
    assert run() == 2
    assert "task=attack is not available" in capsys.readouterr().err
