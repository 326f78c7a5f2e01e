"""Put a trained network among those that the package brings.

    python recipes/ship_victim.py outputs/FOLDER data=cinc2017 data.root=training2017.zip

FOLDER is that of a finished ``task=train`` or ``recipes/train_resnet34.py``; the rest says where
its data are, as for ``run.py``. Weights are stored as float16, and the card gets the scores of what
is stored, on the same held-out records, and what it says of each. All records are classified, which
later runs find in the cache.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ecgadv.config import compose_checked
from ecgadv.evaluate.predictions import class_frequencies, predict
from ecgadv.records.base import CLASSES
from ecgadv.report.progress import Progress
from ecgadv.tasks.common import open_records, show_frequencies
from ecgadv.victims import files, loading, scores


def main(argv: list[str]) -> int:
    """Store the network of one training and score it as stored."""
    if not argv or not (Path(argv[0]) / "victim.json").is_file():
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(argv[0])
    card = json.loads((folder / "victim.json").read_text())
    name = card["architecture"]
    records = open_records(compose_checked(argv[1:]).jobs[0].config)
    if records.digest != card["data"]["digest"]:
        print(f"{records.name}: not the recordings that {folder} was trained on", file=sys.stderr)
        return 2
    model = files.load_keras(folder / "victim.keras", str(folder / "victim.keras"))
    loading.save_weights(model, card, name, loading.WEIGHTS)
    victim = loading.load_victim(name)
    with Progress(f"classifying {records.name}", len(records)) as progress:
        found = predict(victim, records, tick=lambda done, _: progress.update(done))
    show_frequencies(class_frequencies(victim, records, found), records.name, name)
    held = [records.index(record) for record in card["data"]["heldout"]]
    said = found.logits[held].argmax(1)
    truth = np.array([CLASSES.index(c) for c in records.labels[held]])
    confusion = scores.confusion_matrix(truth, said, len(CLASSES))
    card |= {
        "heldout_scores": scores.summary(confusion),
        "heldout_predicted": "".join(CLASSES[k] for k in said),
        "weights": "float16, scored as shipped",
    }
    (loading.WEIGHTS / f"{name}.json").write_text(json.dumps(card, indent=1))
    print(json.dumps(card["heldout_scores"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
