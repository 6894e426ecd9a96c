"""A synthetic pipeline folder, small and with values that the tests can state by hand."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from rl.metrics.tracker import Tracker

SOURCES = ("counting", "grounding", "chart", "molecule")
STEPS = 120
MARKUP = "<script>alert('x')</script> & \"quoted\""


def metrics_row(step: int, noise: random.Random) -> dict[str, Any]:
    rise = 1 - math.exp(-step / 50)
    row: dict[str, Any] = {
        "version": step,
        "time_s": 4.0 * step,
        "loss": noise.gauss(0, 0.02),
        "reward/mean": 0.3 + 0.35 * rise + noise.gauss(0, 0.06),
        "component/accuracy": 0.3 + 0.35 * rise,
        "response/length_mean": 60 - 15 * rise + noise.gauss(0, 3),
        "response/length_max": 128 - noise.randrange(30),
        "response/truncated_fraction": max(0.0, 0.06 - 0.05 * rise + noise.gauss(0, 0.01)),
        "entropy": 0.6 - 0.3 * rise + noise.gauss(0, 0.02),
        "kl/behaviour": abs(noise.gauss(4e-4, 1e-4)),
        "clip/fraction": abs(noise.gauss(0.12, 0.03)),
        "grad_norm": abs(noise.gauss(0.9, 0.2)) + (2.5 if step == 70 else 0),
        "lr": 1e-4 * min(1.0, step / 10),
        "staleness/mean": 1.25,
        "staleness/max": 2.0,
        "staleness/hist": {0: 1, 1: 4, 2: 3},
        "groups/trained": 8,
        "groups/filtered": noise.randrange(5),
        "groups/stale": 1 if step % 20 == 0 else 0,
        "groups/failed": 0,
        "probe/logprob_delta_mean": 10 ** noise.gauss(-6.2, 0.1),
        "probe/logprob_delta_max": 10 ** noise.gauss(-4.9, 0.1),
        "time/step_s": 4.0,
        "tokens/trained": 3200,
    }
    for index, source in enumerate(SOURCES):
        value = min(1.0, max(0.0, 0.2 + 0.1 * index + 0.3 * rise + noise.gauss(0, 0.08)))
        row[f"reward/{source}"] = row[f"accuracy/{source}"] = value
    return row


def evaluation(step: int, mean: float, passed: float, by_task: dict[str, tuple[float, float]]) -> dict[str, Any]:
    right = step > 0
    return {
        "step": step,
        "k": 8,
        "temperature": 1.0,
        "seed": 0,
        "mean_at_8": mean,
        "pass_at_8": passed,
        "tasks": {
            name: {"mean_at_8": pair[0], "pass_at_8": pair[1], "count": 16, "length_mean": 50.0}
            for name, pair in by_task.items()
        },
        "examples": [
            {
                "id": f"counting_{number}",
                "source": "counting",
                "problem": f"<image>How many discs are there? {MARKUP}",
                "answers": ["3"],
                "images": [drawing(3)],
                "completions": [f"<think>one, two, three {step}</think><answer>3</answer>", "<answer>4</answer>", "?"],
                "rewards": [1.0 if right else 0.0, 0.5 if right else 0.0, None],
            }
            for number in range(3)
        ],
    }


def drawing(discs: int) -> str:
    image = Image.new("RGB", (96, 64), "white")
    draw = ImageDraw.Draw(image)
    for i in range(discs):
        draw.ellipse((8 + 28 * i, 20, 28 + 28 * i, 40), fill="navy")
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def fill_run(run: Path) -> None:
    noise = random.Random(0)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\nnote: '<b>bold</b>'\n")
    with Tracker(run) as tracker:
        before = {"counting": (0.25, 0.75), "grounding": (0.30, 0.70), "chart": (0.40, 0.80), "molecule": (0.45, 0.75)}
        middle = {"counting": (0.45, 0.85), "grounding": (0.40, 0.70), "chart": (0.52, 0.85), "molecule": (0.46, 0.75)}
        after = {"counting": (0.60, 0.90), "grounding": (0.50, 0.75), "chart": (0.60, 0.90), "molecule": (0.43, 0.75)}
        tracker.eval(evaluation(0, 0.35, 0.75, before))
        for step in range(1, STEPS + 1):
            tracker.log(step, metrics_row(step, noise))
            start = 4.0 * (step - 1)
            # Each step: rollout-0 works 3.5 of 4 s, rollout-1 3.0 s, the learner 3.0 s.
            tracker.timeline("rollout-0", "generate", start, start + 3.5, step)
            tracker.timeline("rollout-1", "generate", start + 0.5, start + 3.5, step)
            tracker.timeline("learner", "wait", start, start + 1.0, step)
            tracker.timeline("learner", "train", start + 1.0, start + 4.0, step)
            tracker.timeline("sync", "push", start + 3.6, start + 3.9, step)
            tracker.timeline("reward", "score", start + 2.0, start + 2.5, step)
        tracker.eval(evaluation(60, 0.46, 0.79, middle))
        tracker.eval(evaluation(STEPS, 0.5325, 0.825, after))
        fates = ["trained"] * 960 + ["filtered"] * 240 + ["stale"] * 6 + ["failed"] * 2 + ["in_flight"] * 4
        reasons = {"filtered": "zero variance", "stale": "older than 2 versions", "failed": "timeout"}
        for uid, fate in enumerate(fates):
            step = None if fate == "in_flight" else 1 + uid // 8 if fate == "trained" else uid % STEPS
            row = {"uid": uid, "sample_id": f"s{uid}", "fate": fate, "reason": reasons.get(fate), "step": step}
            tracker.fate(row)


def fill_pipeline(folder: Path) -> None:
    noise = random.Random(1)
    fill_run(folder / "rl")
    for name, first, last in (("sft-1-align", 6.0, 3.0), ("sft-2-mid", 3.2, 0.9), ("sft-3-instruct", 1.0, 0.4)):
        with Tracker(folder / name) as tracker:
            for step in range(5, 405, 5):
                loss = last + (first - last) * math.exp(-step / 75) + noise.gauss(0, 0.05)
                tracker.log(step, {"loss": loss, "lr": 1e-3, "time_s": 0.1 * step, "tokens_per_s": 4000.0})
    write_candidates(folder / "curate" / "candidates.parquet", noise)
    steps = [{"step": "sft", "seconds": 120.0, "exit_code": 0}, {"step": "train", "seconds": 480.5, "exit_code": 0}]
    (folder / "pipeline.json").write_text(json.dumps(steps))


def write_candidates(path: Path, noise: random.Random) -> None:
    """8 attempts each, Pass@N at N = 4: kept where it is at least 0.5 and Pass@1 at most 0.5."""
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "source", "n", "correct", "mean_reward")}
    columns |= {name: [] for name in ("pass_at_1", "pass_at_n", "kept", "reason")}
    for number in range(400):
        right = min(8, max(0, round(noise.gauss(3, 3))))
        one, many = right / 8, 1 - math.comb(8 - right, 4) / 70
        kept = many >= 0.5 and one <= 0.5
        reason = "kept" if kept else "too easy" if one > 0.5 else "too hard"
        values = (f"c{number}", SOURCES[number % 4], 8, float(right), one, one, many, kept, reason)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="session")
def pipeline_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    fill_pipeline(folder)
    return folder


@pytest.fixture()
def pipeline(pipeline_template: Path, tmp_path: Path) -> Path:
    """A pipeline folder of this test's own."""
    import shutil

    return Path(shutil.copytree(pipeline_template, tmp_path / "quickstart"))
