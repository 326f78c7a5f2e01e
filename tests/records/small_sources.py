"""Small data sources in the layouts that the readers take."""

import zipfile
from pathlib import Path

import numpy as np


def beat(samples: int, seed: int = 0) -> np.ndarray:
    """(samples,) int16, 1000 units per mV: a spike a second on a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 300
    spike = 900 * np.exp(-(((t - 0.5) % 1 - 0.5) ** 2) / (2 * 0.012**2))
    return np.rint(spike + 20 * rng.normal(size=samples)).astype(np.int16)


def write_cinc(
    folder: Path,
    signals: dict[str, np.ndarray],
    labels: dict[str, str],
    reference: str = "REFERENCE-v3.csv",
    fs: int = 300,
    gain: int = 1000,
) -> Path:
    """PhysioNet's layout of the 2017 set in ``folder``."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    for name, signal in signals.items():
        savemat(folder / f"{name}.mat", {"val": signal[None]}, format="4")
        (folder / f"{name}.hea").write_text(
            f"{name} 1 {fs} {signal.size} 05:05:15 1/05/2000 \n"
            f"{name}.mat 16+24 {gain}/mV 16 0 0 0 0 ECG \n"
        )
    rows = "".join(f"{name},{label}\n" for name, label in labels.items())
    (folder / reference).write_text(rows)
    return folder


def zip_folder(folder: Path, target: Path) -> Path:
    """Pack ``folder`` as PhysioNet does: everything under ``training2017/``."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"training2017/{file.name}")
    return target
