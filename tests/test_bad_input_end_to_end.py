"""Recordings, labels and victims that are not what they should be, through the whole command."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import beats, error_lines, execute, in_process, random_network, status_of, table

pytestmark = pytest.mark.slow

LETTERS = "ANO~"


def write_record(folder, name, signal, fs=300):
    from scipy.io import savemat

    savemat(folder / f"{name}.mat", {"val": np.asarray(signal, np.int16)[None]}, format="4")
    (folder / f"{name}.hea").write_text(
        f"{name} 1 {fs} {len(signal)} 05:05:15 1/05/2000 \n"
        f"{name}.mat 16+24 1000/mV 16 0 0 0 0 ECG \n"
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Six good recordings in the layout of CinC 2017, labelled as the victim reads them."""
    folder = tmp_path_factory.mktemp("good")
    place = folder / "training2017"
    place.mkdir()
    victim = random_network(9000)
    victim.model.save(folder / "small.keras")
    signals = np.rint(200 * beats(6, 9000, seed=5)).astype(np.int16)
    read = victim.pipeline(signals.astype(float)).argmax(1)
    labels = {f"A{i:05d}": LETTERS[k] for i, k in enumerate(read, 1)}
    for name, signal in zip(labels, signals, strict=True):
        write_record(place, name, signal)
    write_labels(place, labels)
    return folder, labels


def write_labels(place, labels):
    (place / "REFERENCE-v3.csv").write_text("".join(f"{k},{v}\n" for k, v in labels.items()))


def add_truncated(place, labels):
    write_record(place, "A00007", np.arange(9000) % 300)
    file = place / "A00007.mat"
    file.write_bytes(file.read_bytes()[:5000])
    return labels | {"A00007": "N"}


def add_nothing(place, labels):
    (place / "A00007.mat").write_bytes(b"")
    return labels | {"A00007": "N"}


def add_absent(place, labels):
    return labels | {"A00007": "N"}


def add_wrong_rate(place, labels):
    write_record(place, "A00007", np.arange(9000) % 300, fs=500)
    return labels | {"A00007": "N"}


def add_foreign_label(place, labels):
    write_record(place, "A00007", np.arange(9000) % 300)
    return labels | {"A00007": "AFIB"}


SKIPPED = {
    add_truncated: "",
    add_nothing: "",
    add_absent: "its .mat file is missing",
    add_wrong_rate: "sampled at 500 Hz, CinC 2017 is at 300 Hz",
    add_foreign_label: "label 'AFIB' is not one of A, N, O, ~",
}


def overrides(folder, place, root):
    return [
        "data=cinc2017", f"data.root={place}", "victim=keras",
        f"victim.path={folder / 'small.keras'}", "tracking=none", "target=untargeted",
        "attack.steps=6", f"paths.root={root}", f"paths.data={root / 'cache'}",
    ]  # fmt: skip


@pytest.mark.parametrize("spoil", SKIPPED, ids=lambda f: f.__name__)
def test_one_bad_record_is_skipped_and_listed(good, tmp_path, capsys, spoil):
    folder, labels = good
    place = tmp_path / "training2017"
    shutil.copytree(folder / "training2017", place)
    write_labels(place, spoil(place, labels))
    code, run = in_process(*overrides(folder, place, tmp_path), "selection=all")
    assert code == 0
    assert "note: record A00007 skipped" in capsys.readouterr().err
    rows = table(run)
    (gone,) = [row for row in rows if row["status"] == "skipped"]
    assert gone["record"] == "A00007"
    assert gone["success"] == "false"
    assert SKIPPED[spoil] in gone["message"]
    assert gone["message"]
    assert sorted(r["record"] for r in rows if r["status"] == "ok") == sorted(labels)
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["n_cases"], summary["n_skipped"]) == (6, 1)
    assert status_of(run)["status"] == "finished"


def test_a_record_with_gaps_is_attacked_and_a_flat_one_is_not(good, tmp_path, capsys):
    folder, _ = good
    signals = 0.2 * beats(4, 9000, seed=5)
    signals[1, 100:140] = np.nan
    signals[2] = 0.7
    signals[3] = np.nan
    victim = random_network(9000)
    filled = np.nan_to_num(signals[:2])
    read = victim.pipeline(filled).argmax(1)
    arrays = {f"R{i}": signals[i] for i in range(4)}
    file = tmp_path / "own.npz"
    np.savez(file, labels=np.array([LETTERS[read[0]], LETTERS[read[1]], "N", "N"]), fs=300.0,
             **arrays)  # fmt: skip
    code, run = in_process(
        "data=arrays", f"data.root={file}", "victim=keras",
        f"victim.path={folder / 'small.keras'}", "tracking=none", "target=untargeted",
        "selection=all", "attack.steps=6", f"paths.root={tmp_path}",
        f"paths.data={tmp_path / 'cache'}",
    )  # fmt: skip
    assert code == 0
    rows = table(run)
    assert [r["record"] for r in rows if r["status"] == "ok"] == ["R0", "R1"]
    gone = {r["record"]: r["message"] for r in rows if r["status"] == "skipped"}
    assert set(gone) == {"R2", "R3"}
    assert "flat line" in gone["R2"]
    assert all(gone.values())
    said = capsys.readouterr().err
    assert all(f"note: record {record} skipped" in said for record in gone)
    with np.load(run / "perturbations.npz") as stored:
        assert np.isfinite(stored["delta"]).all()


def five_outputs(folder):
    inputs = keras.Input((9000, 1))
    y = keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(3, 9)(inputs))
    keras.Model(inputs, keras.layers.Dense(5)(y)).save(folder / "five.keras")
    return "five.keras"


def another_length(folder):
    random_network(600).model.save(folder / "short.keras")
    return "short.keras"


def not_finite(folder):
    inputs = keras.Input((9000, 1))
    y = keras.layers.Dense(4)(keras.layers.GlobalMaxPooling1D()(keras.layers.Conv1D(3, 9)(inputs)))
    model = keras.Model(inputs, y)
    weights = model.get_weights()
    model.set_weights([*weights[:-1], weights[-1] * np.nan])
    model.save(folder / "nan.keras")
    return "nan.keras"


def archive_of_something_else(folder):
    np.savez(folder / "arrays.npz", x=np.zeros(3))
    (folder / "arrays.npz").rename(folder / "arrays.keras")
    return "arrays.keras"


def with_code(folder):
    inputs = keras.Input((9000, 1))
    y = keras.layers.Lambda(lambda v: 2 * v)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, keras.layers.Dense(4)(y)).save(folder / "code.keras")
    return "code.keras"


VICTIMS = {
    five_outputs: "5 outputs, but the classes are A, N, O, ~ (4)",
    not_finite: "its outputs are not finite",
    archive_of_something_else: "Keras model",
    with_code: "cannot be loaded as a Keras model",
}


@pytest.mark.parametrize("make", VICTIMS, ids=lambda f: f.__name__)
def test_a_victim_that_cannot_be_attacked_is_one_line(good, tmp_path, capsys, make):
    from ecgadv import cli

    folder, _ = good
    file = tmp_path / make(tmp_path)
    capsys.readouterr()
    code = cli.main(
        [*overrides(folder, folder / "training2017", tmp_path / "out"), f"victim.path={file}"]
    )
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(said) == 1, said
    assert said[0].startswith("error: ")
    assert VICTIMS[make] in said[0]
    runs = list((tmp_path / "out" / "outputs").glob("*/status.json"))
    assert all(status_of(file.parent)["status"] == "failed" for file in runs)


def test_in_a_process_of_its_own_there_is_nothing_but_the_line(good, tmp_path):
    """Notices of TensorFlow included: what fails late must be as readable as what fails early."""
    folder, _ = good
    five_outputs(tmp_path)
    options = overrides(folder, folder / "training2017", tmp_path)
    result = execute(*options, f"victim.path={tmp_path / 'five.keras'}")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == error_lines(result)
    assert len(error_lines(result)) == 1
    assert "5 outputs" in result.stderr


def test_no_usable_record_at_all_is_one_line(good, tmp_path, capsys):
    from ecgadv import cli

    folder, _ = good
    place = tmp_path / "training2017"
    place.mkdir()
    write_labels(place, add_truncated(place, {}))
    capsys.readouterr()
    assert cli.main([*overrides(folder, place, tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert "no usable record" in line


def test_a_zip_that_ends_early_is_one_line(good, tmp_path, capsys):
    from ecgadv import cli

    folder, _ = good
    archive = shutil.make_archive(str(tmp_path / "training2017"), "zip", folder, "training2017")
    content = Path(archive).read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    capsys.readouterr()
    assert cli.main([*overrides(folder, tmp_path / "cut.zip", tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "zip" in line


def test_a_victim_that_reads_nothing_correctly_says_so(good, tmp_path, capsys):
    """Every label is turned by one class: there is nothing that the attack may start from."""
    from ecgadv import cli

    folder, labels = good
    place = tmp_path / "training2017"
    shutil.copytree(folder / "training2017", place)
    turned = {k: LETTERS[(LETTERS.index(v) + 1) % 4] for k, v in labels.items()}
    write_labels(place, turned)
    capsys.readouterr()
    assert cli.main([*overrides(folder, place, tmp_path / "out")]) == 2
    *notes, line = capsys.readouterr().err.strip().splitlines()
    assert "0 classified correctly by the victim" in line
    # Why that may be is said before: the labels are those of another order.
    assert all(note.startswith("note: ") for note in notes)
    assert any("victim.classes=" in note for note in notes)
