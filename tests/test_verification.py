"""Every stored success, recomputed by a script that shares no code with the package."""

import json
import shutil

import numpy as np
import pytest
from helpers import in_process, random_network, small_world, table
from independent_check import check, mat4

import ecgadv


def per_record(overrides, folder):
    """The recordings of a small world, one array a record, as the script reads them."""
    with np.load(folder / "records.npz") as stored:
        rows = {
            name: row[np.isfinite(row)]
            for name, row in zip(stored["ids"].tolist(), stored["signals"], strict=True)
        }
    np.savez(folder / "each.npz", **rows)
    return folder / "each.npz"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    network = random_network(9000)
    overrides = small_world(folder, network=network)
    return folder, overrides, per_record(overrides, folder), network


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["metric=l2"],
        ["metric=diff", "batch_size=5"],
        ["metric=diffl2", "attack.perturb_padding=true"],
        ["target=untargeted", "attack=cw", "attack.steps=30", "attack.search_steps=2"],
    ],
    ids=" ".join,
)
def test_a_run_holds_under_an_independent_check(world, options):
    folder, overrides, each, network = world
    steps = [] if "attack=cw" in options else ["attack.steps=25"]
    code, run = in_process(*overrides, *options, *steps, f"paths.root={folder}")
    assert code == 0
    result = check(run, each, network.logits)
    assert result["wrong"] == []
    assert result["cases"] == len(table(run)) >= 6
    assert result["success"] >= (3 if "attack=cw" in options else 12)


@pytest.mark.slow
def test_the_check_notices_what_is_wrong(world, tmp_path):
    """A success that is none, a padding that is touched, a distance that is not the delta's."""
    folder, overrides, each, network = world
    _, run = in_process(*overrides, "metric=l2", "attack.steps=25", f"paths.root={folder}")
    assert check(run, each, network.logits)["wrong"] == []

    def spoiled(change):
        place = tmp_path / change.__name__
        shutil.copytree(run, place)
        with np.load(place / "perturbations.npz") as stored:
            parts = dict(stored)
        change(parts)
        np.savez(place / "perturbations.npz", **parts)
        return " ".join(check(place, each, network.logits)["wrong"])

    def weaker(parts):
        parts["delta"] = parts["delta"] * np.float32(0.97)

    def padding(parts):
        row = parts["case_id"].tolist().index(next(c for c in parts["case_id"] if "R01" in c))
        parts["delta"][row, 8000] = 0.01

    def scale(parts):
        parts["scale_mv"] = parts["scale_mv"] * 2

    said = spoiled(weaker)
    assert "recomputed False" in said
    assert "d_l2" in said
    assert "the padding is perturbed" in spoiled(padding)
    assert "scale_mv" in spoiled(scale)


def test_the_script_reads_matlab_files_as_scipy_does(tmp_path):
    from scipy.io import savemat

    signal = np.arange(-5, 20, dtype=np.int16)
    savemat(tmp_path / "a.mat", {"val": signal[None]}, format="4")
    np.testing.assert_array_equal(mat4((tmp_path / "a.mat").read_bytes()), signal)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["l2", "diff", "diffl2"])
def test_real_recordings_with_the_shipped_victim(cinc2017_root, tmp_path_factory, metric):
    root = tmp_path_factory.getbasetemp() / "real"
    code, run = in_process(
        "data=cinc2017", f"data.root={cinc2017_root}", f"metric={metric}", "selection.per_class=2",
        "tracking=none", f"paths.root={root}", f"paths.data={root / 'cache'}",
    )  # fmt: skip
    assert code == 0
    result = check(run, cinc2017_root, ecgadv.load_victim("compact").logits)
    assert result["wrong"] == []
    assert result["cases"] == 24
    assert result["success"] >= 0.95 * 24
    summary = json.loads((run / "summary.json").read_text())
    assert summary["n_success"] == result["success"]
    pairs = {f"{a}>{b}" for a in "ANO~" for b in "ANO~" if a != b}
    assert set(summary["pairs"]) == pairs
    assert {row["split"] for row in table(run)} <= {"train", "heldout"}
