"""Sweeps on a SLURM and on a Ray cluster, each started here for real on one machine.

Both skip with a reason where the cluster's programs are not installed. For SLURM that is, on
Debian, ``apt-get install slurmctld slurmd slurm-client munge``; for Ray the extra ``ray``.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys

import pytest
from helpers import (
    command,
    environment,
    execute,
    small_world,
    started,
    status_of,
    table,
    wait_for,
    without_times,
)

pytestmark = pytest.mark.slow

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.sock
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={second}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=30
SchedulerParameters=requeue_delay=1
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def installed(*modules):
    with contextlib.suppress(ModuleNotFoundError):
        return all(importlib.util.find_spec(m) for m in modules)
    return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def slurm(tmp_path_factory):
    """Environment of a SLURM cluster of one node with two cores, and a partition that preempts."""
    if not installed("hydra_plugins.hydra_submitit_launcher"):
        pytest.skip("needs ecgadv[slurm]")
    daemons = ("munged", "slurmctld", "slurmd")
    if os.geteuid() != 0 or not all(shutil.which(d) for d in daemons):
        pytest.skip("needs root and Debian's slurmctld, slurmd, slurm-client and munge")
    place = tmp_path_factory.mktemp("slurm")
    place.chmod(0o755)
    for name in ("state", "spool"):
        (place / name).mkdir()
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    text = SLURM_CONF.format(host=host, place=place, port=free_port(), second=free_port())
    (place / "slurm.conf").write_text(text)
    env = environment(SLURM_CONF=str(place / "slurm.conf"))
    munged = [
        "munged", "--force", f"--key-file={key}", f"--socket={place}/munge.sock",
        f"--pid-file={place}/munged.pid", f"--log-file={place}/munged.log",
        f"--seed-file={place}/munge.seed",
    ]  # fmt: skip
    try:
        for line in (munged, ["slurmctld", "-c"], ["slurmd", "-c"]):
            subprocess.run(line, env=env, check=True, capture_output=True, timeout=60)

        def is_up():
            shown = subprocess.run(
                ["sinfo", "-h", "-p", "main", "-o", "%t"], env=env, capture_output=True, text=True
            )
            return shown.stdout.strip() == "idle"

        wait_for(is_up, timeout=60)
        yield env
    finally:
        subprocess.run(["scancel", "-u", "root"], env=env, check=False)
        for name in ("slurmd", "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((place / f"{name}.pid").read_text()), 15)


def parts(folder):
    return len(list((folder / "parts").glob("part-*.npz")))


def test_slurm_jobs_that_are_stopped_are_queued_again_and_go_on(slurm, tmp_path):
    """An array job; both jobs get the signal of a job whose time is over, then are preempted."""
    world = [*small_world(tmp_path / "world"), "batch_size=2", "attack.steps=300"]
    sweep = [
        "-m", *world, f"paths.root={tmp_path / 'cluster'}", "metric=l2,diff",
        "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1",
    ]  # fmt: skip

    def slurm_says(*line):
        done = subprocess.run(line, env=slurm, capture_output=True, text=True, check=True)
        return done.stdout.split()

    def running():
        return slurm_says("squeue", "-h", "-p", "main", "-t", "RUNNING", "-o", "%i")

    with started(*sweep, env=slurm) as process:
        wait_for(lambda: len(list(tmp_path.rglob("part-000001.npz"))) == 2, process)
        folders = sorted(p.parents[1] for p in tmp_path.rglob("part-000001.npz"))
        for job in running():
            slurm_says("scancel", "--signal=USR2", job)
        wait_for(lambda: all(status_of(f)["status"] == "killed" for f in folders), process)
        stopped = [parts(f) for f in folders]
        wait_for(lambda: all(parts(f) > n for f, n in zip(folders, stopped, strict=True)), process)
        assert all(parts(f) < 9 for f in folders), "the jobs were too short for this test"
        slurm_says("sbatch", "-p", "urgent", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 1")
        wait_for(lambda: any(status_of(f)["status"] == "killed" for f in folders), process)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    assert [status_of(f)["status"] for f in folders] == ["finished"] * 2
    assert "1_metric-diff  finished" in out
    whole = execute(
        *world,
        f"paths.root={tmp_path / 'local'}",
        "metric=diff",
        env=environment(ECGADV_THREADS="1"),
    )
    assert whole.returncode == 0
    (local,) = (tmp_path / "local" / "outputs").iterdir()
    assert without_times(table(folders[1])) == without_times(table(local))


@pytest.fixture
def ray(tmp_path):
    """Environment and address of a Ray cluster of two nodes on this machine, one core each."""
    if not installed("ray", "hydra_plugins.hydra_ray_launcher"):
        pytest.skip("needs ecgadv[ray]")
    env = environment(
        RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0123456789abcdef" * 2, RAY_USAGE_STATS_ENABLED="0",
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1",
    )  # fmt: skip
    port = free_port()
    shared = ["--num-cpus=1", "--object-store-memory=100000000", "--block"]
    head = [
        "start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1",
        "--include-dashboard=false", f"--temp-dir=/tmp/ray-{os.getpid()}",
    ]  # fmt: skip
    second = ["start", f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.2"]
    nodes = []
    ray_program = [sys.executable, "-m", "ray.scripts.scripts"]
    try:
        for line in (head, second):
            with (tmp_path / f"node{len(nodes)}.log").open("w") as log:
                nodes.append(
                    subprocess.Popen(
                        [*ray_program, *line, *shared], env=env, stdout=log, stderr=log
                    )
                )
            wait_for(lambda: reached(port), timeout=60)
        yield env, f"127.0.0.1:{port}", tmp_path
    finally:
        for node in nodes[::-1]:
            node.terminate()
        for node in nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(timeout=30)
        shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def reached(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_ray_spreads_a_sweep_over_two_nodes(ray, tmp_path):
    env, address, _ = ray
    world = small_world(tmp_path / "world")
    sweep = [
        "-m", *world, f"paths.root={tmp_path}", "metric=l2,diff", "batch_size=4", "attack.steps=4",
        "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}",
    ]  # fmt: skip
    # Each node has one core, so that two jobs at once are on two nodes.
    done = subprocess.run(
        command(*sweep), capture_output=True, text=True, env=env, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folders = sorted(p.parent for p in tmp_path.rglob("status.json"))
    assert [status_of(f)["status"] for f in folders] == ["finished"] * 2
    assert len({status_of(f)["pid"] for f in folders}) == 2
    assert "1_metric-diff  finished" in done.stdout
    began = [(f / ".hydra" / "config.yaml").stat().st_mtime for f in folders]
    ended = [(f / "status.json").stat().st_mtime for f in folders]
    assert max(began) < min(ended), "the jobs did not run at once"
