"""Who fools whom: perturbations of one victim judged by others."""

import json
import subprocess
import sys

import numpy as np
from helpers import REPO, beats, environment, random_network

import ecgadv
from ecgadv.evaluate.transfer import rejudge, transfer_matrix, transfer_rates
from ecgadv.study.judge import Judge

LETTERS = "ANO~"


def made_on(victim, x):
    """Untargeted perturbations of the records, and their cases."""
    source = victim.logits(x).argmax(1)
    result = ecgadv.attack(victim, x, steps=20)
    assert result.success.all()
    cases = [
        {"case_id": f"R{i}", "record": f"R{i}", "source": LETTERS[s], "target": "any"}
        for i, s in enumerate(source)
    ]
    return cases, result.delta


def test_every_victim_fools_itself_and_others_are_counted_where_they_read_the_record():
    x = beats(12, 600, seed=2)
    lengths = np.full(12, 600)
    victims = [random_network(seed=seed) for seed in (3, 4)]
    names = ["first", "second"]
    summaries = []
    for maker, attacked in zip(names, victims, strict=True):
        cases, delta = made_on(attacked, x)
        for judge, victim in zip(names, victims, strict=True):
            _, rows = rejudge(Judge(victim), cases, x, delta, lengths)
            rates = transfer_rates(rows)
            clean = victim.logits(x).argmax(1)
            agree = np.array(
                [LETTERS[c] == row["source"] for c, row in zip(clean, cases, strict=True)]
            )
            assert [row["clean"] for row in rows] == [LETTERS[c] for c in clean]
            assert rates["to_target"]["n"] == agree.sum()
            after = victim.pipeline(x.astype(float) + delta).argmax(1)
            left = sum(
                LETTERS[a] != row["source"]
                for a, row, ok in zip(after, cases, agree, strict=True)
                if ok
            )
            assert rates["off_source"]["n_success"] == left
            if maker == judge:
                assert agree.all()
                assert rates["to_target"]["n_success"] == len(x)
            summaries.append(
                {"victim": {"name": judge}, "evaluated": {"victim": {"name": maker}},
                 "transfer": rates}
            )  # fmt: skip
    others = [s["transfer"]["to_target"] for s in summaries[1:3]]
    assert all(one["n"] > 0 for one in others)
    head, *table = transfer_matrix(summaries)
    assert head[1:] == names
    assert [row[0] for row in table] == names
    for i, row in enumerate(table):
        assert row[1 + i].startswith("12/12 (75.8 to 100.0 %)")
        own, other = others[i]["n_success"], others[i]["n"]
        assert row[2 - i].startswith(f"{own}/{other} (")


def test_the_table_of_a_folder(tmp_path):
    rate = {"n": 10, "n_success": 4, "success_rate": 0.4, "ci95": [0.168, 0.687]}
    for number, judge in enumerate(("b", "b", "a")):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        summary = {"victim": {"name": judge}, "evaluated": {"victim": {"name": "a"}},
                   "transfer": {"to_target": rate}}  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "summary.json").write_text("{}")
    result = subprocess.run(
        [sys.executable, str(REPO / "tools/transfer_table.py"), str(tmp_path)], text=True,
        capture_output=True, env=environment(), check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].endswith("| a | b |")
    assert lines[2] == "| a | 4/10 (16.8 to 68.7 %) | 8/20 (21.9 to 61.3 %) |"
