"""A synthetic set with planted faults is cleaned; recall and precision of each kind, against what went in."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rewards.extract import final_answer
from rl.config.base import parse_config
from rl.config.clean import CleanConfig
from rl.config.data import SynthConfig
from rl.curate.clean import run
from rl.data.formats import read_samples
from rl.data.synth import generate

from .conftest import right_of, store

PLANTED = 20
REASONS = {
    "exact_duplicate": {"exact_duplicate"},
    "near_duplicate": {"near_duplicate"},
    "conflicting_answers": {"conflicting_answers"},
    "leaked": {"leaked_text", "leaked_image"},
    "broken_image": {"broken_image"},
    "blank_image": {"blank_image"},
    "bad_gold": {"bad_gold"},
    "wrong_gold": {"disputed_gold"},
    "guessable": {"guessable"},
    "bad_row": {"bad_row", "no_verifier"},
}
AIM = 0.95


def same_scene(one: bytes, other: bytes) -> bool:
    """Whether two pictures show the same on grounds of different colors: the generator draws such pairs by chance."""
    flat = []
    for data in (one, other):
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        colors, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
        flat.append(np.where((pixels == colors[counts.argmax()]).all(axis=2, keepdims=True), 255, pixels))
    return bool((np.abs(flat[0] - flat[1]).max(axis=2) > 48).mean() < 0.03)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict:
    """Rows by id, removals by id, and the summary of one cleaning."""
    root = tmp_path_factory.mktemp("planted")
    sources = ("counting", "grounding", "spatial", "chart", "molecule", "arithmetic", "caption")
    train = {"count": dict.fromkeys(sources, 60), "plant": dict.fromkeys(REASONS, PLANTED), "leak_from": "eval"}
    evaluation = {"count": {"counting": 25, "spatial": 25, "chart": 25, "arithmetic": 25}}
    config = {"out": str(root), "seed": 3, "splits": {"eval": evaluation, "train": train}}
    data = generate(parse_config(SynthConfig, config))
    rows = {row["id"]: row for row in pq.read_table(data["train"]).to_pylist()}
    truth = {name: final_answer(row["solution"]) or "" for name, row in rows.items()}
    wrong = {name for name, row in rows.items() if row["data_source"] == "planted:wrong_gold"}
    told = {name for name, row in rows.items() if row["data_source"] == "planted:guessable"}
    sighted = store(root / "sighted", {name: right_of(0 if name in wrong else 7) for name in rows}, answers=truth)
    blind = store(root / "blind", {name: right_of(8 if name in told else 2) for name in rows})
    settings = {
        "data": str(data["train"]),
        "out": str(root / "clean"),
        "decontaminate": {"against": [str(data["eval"])]},
        "golds": {"disputed_by": [str(sighted)]},
        "guessable": {"attempts": [str(blind)]},
    }
    target = run(parse_config(CleanConfig, settings))
    removed = {row["id"]: row for row in pq.read_table(root / "clean" / "removed.parquet").to_pylist()}
    summary = json.loads((root / "clean" / "clean.json").read_text())
    return {"rows": rows, "removed": removed, "summary": summary, "target": target}


def kind_of(row: dict) -> str:
    return row["data_source"].removeprefix("planted:")


def grade(planted: dict) -> dict[str, tuple[float, float]]:
    """(recall, precision) per kind."""
    rows, removed = planted["rows"], planted["removed"]
    # A row that is contradicted goes with the one that contradicts it; no one can say which is right.
    conflicting = {row["ability"] for row in rows.values() if kind_of(row) == "conflicting_answers"}
    tally: Counter[tuple[str, str]] = Counter()
    for name, row in rows.items():
        reason = removed[name]["reason"] if name in removed else None
        for kind, wanted in REASONS.items():
            if kind_of(row) == kind:
                tally[kind, "planted"] += 1
                tally[kind, "found"] += reason in wanted
            if reason in wanted:
                tally[kind, "removed"] += 1
                expected = kind_of(row) == kind or (kind == "conflicting_answers" and name in conflicting)
                tally[kind, "rightly"] += expected or _drawn_twice(rows, removed[name])
    return {
        kind: (
            tally[kind, "found"] / tally[kind, "planted"],
            tally[kind, "rightly"] / max(1, tally[kind, "removed"]),
        )
        for kind in REASONS
    }


def _drawn_twice(rows: dict, removal: dict) -> bool:
    one, other = rows[removal["id"]], rows.get(removal["other"])
    if removal["reason"] != "near_duplicate" or other is None or not one["images"]:
        return False
    same_text = (one["problem"], one["answer"]) == (other["problem"], other["answer"])
    return same_text and same_scene(one["images"][0]["bytes"], other["images"][0]["bytes"])


def test_recall_and_precision_of_every_kind(planted):
    grades = grade(planted)
    for kind, (recall, precision) in grades.items():
        print(f"{kind:20} recall {recall:.3f} precision {precision:.3f}")
    assert {kind: pair for kind, pair in grades.items() if min(pair) < AIM} == {}


def test_reasons_are_those_of_the_kinds(planted):
    rows, removed = planted["rows"], planted["removed"]
    for kind in ("broken_image", "blank_image", "bad_gold", "bad_row", "leaked", "guessable"):
        found = [removed[name]["reason"] for name, row in rows.items() if kind_of(row) == kind and name in removed]
        assert set(found) <= REASONS[kind], kind


def test_what_stays_is_whole(planted):
    kept = read_samples(planted["target"])
    assert len(kept) == planted["summary"]["rows_out"] == len(planted["rows"]) - len(planted["removed"])
    original = planted["rows"]
    assert all(sample.images == tuple(i["bytes"] for i in original[sample.id]["images"]) for sample in kept)


def test_every_reason_has_an_example(planted):
    summary = planted["summary"]
    assert sum(summary["removed"].values()) == len(planted["removed"])
    assert set(summary["examples"]) == set(summary["removed"])
    for examples in summary["examples"].values():
        assert all(example["detail"] and example["problem"] for example in examples)


def test_images_seen_before_are_not_decoded_again(planted):
    files = {image["bytes"] for row in planted["rows"].values() for image in row["images"]}
    assert planted["summary"]["images_decoded"] <= len(files)
