"""Whether a run's files account for every prompt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rl.metrics.files import read_metrics
from tests.integration.support import MAX_DELTA


def fates_of(out: Path) -> list[dict[str, Any]]:
    """A row for every prompt that was admitted."""
    return [json.loads(line) for line in (out / "fates.jsonl").read_text().splitlines()]


def assert_accounted(out: Path, steps: int, size: int = 4) -> None:
    """Every prompt has one fate in the files, and each step trained its number of groups once."""
    fates = fates_of(out)
    assert sorted(row["uid"] for row in fates) == list(range(len(fates)))
    trained = Counter(row["step"] for row in fates if row["fate"] == "trained")
    assert trained == dict.fromkeys(range(1, steps + 1), size)
    assert [row["step"] for row in read_metrics(out).rows] == list(range(1, steps + 1))
    summary = json.loads((out / "summary.json").read_text())["fates"]
    assert summary["admitted"] == len(fates) == sum(count for fate, count in summary.items() if fate != "admitted")


def assert_sound(out: Path, steps: int, size: int = 4, staleness: int = 2) -> None:
    """The same; no prompt failed, since a dead process is nobody's wrong answer, and every engine that came back had
    the right weights."""
    assert_accounted(out, steps, size)
    rows = read_metrics(out).rows
    assert all(row["staleness/max"] <= staleness for row in rows)
    assert all(row["probe/logprob_delta_mean"] < MAX_DELTA for row in rows)
    assert not [row for row in fates_of(out) if row["fate"] == "failed"]


def assert_epochs(out: Path, samples: int) -> None:
    """Every sample of the dataset was trained, filtered or failed once in each epoch that is over.

    A group that got too old gives its sample back, which comes up again before any new one does.
    """
    ended = Counter(row["sample_id"] for row in fates_of(out) if row["fate"] not in ("stale", "in_flight"))
    met = Counter(row["sample_id"] for row in fates_of(out) if row["fate"] != "stale")
    epochs = min(met.values())
    assert len(met) == samples and epochs >= 1, "not one epoch is over"
    assert set(met.values()) <= {epochs, epochs + 1}
    assert set(ended.values()) <= {epochs - 1, epochs, epochs + 1}
