"""`rl train` as a whole: an asynchronous run, its resumption, and the model that it leaves."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl import train
from rl.config.train import TrainConfig
from rl.data.formats import read_samples
from rl.data.images import decode_image
from rl.data.prompts import render_prompt
from rl.errors import ConfigError
from rl.metrics.files import read_evals, read_fates, read_metrics
from rl.models.encoder import EncodedPrompt, PromptEncoder
from rl.records import WeightBundle
from rl.rollout.vllm_engine import VllmEngine
from rl.sync.bundle import unpack
from tests.integration.support import MAX_DELTA, PROMPTS, Paths, bundle_behind, differences, request, train_config

pytestmark = pytest.mark.timeout(180)

STEPS, BROKEN, MORE, BOUND = 4, 2, 6, 2
FINAL = ("trained", "filtered", "failed", "stale")


@dataclass(frozen=True)
class Folder:
    path: Path
    config: TrainConfig

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def hf(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step_{step:06d}" / "hf"


@pytest.fixture(scope="module")
def finished(cluster: None, paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A run of four steps with S = 2."""
    out = tmp_path_factory.mktemp("train") / "run"
    changes = {"steps": STEPS, "algo__max_staleness": BOUND, "data__eval": paths.eval, "checkpoint__every": 2}
    config = train_config(paths, out, **changes, evaluation__k=2, evaluation__every=2)
    assert train.run(config) == out
    return Folder(out, config)


@dataclass(frozen=True)
class Resumed:
    folder: Folder
    version: int
    weights: WeightBundle
    """What the learner held when it had been restored."""


@pytest.fixture(scope="module")
def resumed(finished: Folder) -> Resumed:
    """As if the run had been killed after its checkpoint of step 2: its last checkpoint is gone, its rows are not."""
    path = finished.path.with_name("resumed")
    shutil.copytree(finished.path, path, ignore=shutil.ignore_patterns(f"step_{STEPS:06d}"))
    restore, seen = train._restore, {}

    async def spy(found: Any, pool: Any, learner: Any, *parts: Any) -> Any:
        version, loaded = await restore(found, pool, learner, *parts)
        seen.update(version=version, weights=await bundle_behind(await learner.publish()))
        return version, loaded

    config = finished.config.model_copy(update={"steps": MORE, "out": str(path)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_restore", spy)
        train.run(config, resume=True)
    return Resumed(Folder(path, config), **seen)


def test_a_run_reports_what_it_did(finished: Folder) -> None:
    rows = read_metrics(finished.path).rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["staleness/max"] <= min(BOUND, row["step"] - 1)
        assert 0 <= row["probe/logprob_delta_mean"] <= row["probe/logprob_delta_max"] < MAX_DELTA
        assert row["grad_norm"] > 0
        assert 0 < row["sync/apply_s"] <= row["sync/pause_s"] <= row["sync/push_s"]
    # Groups for the second step were admitted before the first was published.
    assert max(row["staleness/max"] for row in rows) >= 1
    assert [result.step for result in read_evals(finished.path)] == [0, 2, 4]
    assert "data:image/png;base64" in (finished.path / "report.html").read_text()
    actors = {(row["actor"], row["phase"]) for row in finished.lines("timeline.jsonl")}
    assert {("learner", "train"), ("rollout-0", "generate"), ("sync", "push"), ("sync", "eval")} <= actors


def test_every_prompt_has_one_fate(finished: Folder) -> None:
    summary = json.loads((finished.path / "summary.json").read_text())
    fates = summary["fates"]
    assert fates["admitted"] == sum(fates[fate] for fate in (*FINAL, "in_flight"))
    assert fates["trained"] == STEPS * finished.config.algo.prompts_per_step
    rows = finished.lines("fates.jsonl")
    assert sorted(row["uid"] for row in rows) == list(range(fates["admitted"]))
    by_step = [sum(row["fate"] == "trained" and row["step"] == step for row in rows) for step in range(1, STEPS + 1)]
    assert by_step == [finished.config.algo.prompts_per_step] * STEPS
    assert summary["steps"] == STEPS
    assert summary["max_probe_logprob_delta_token"] < MAX_DELTA
    assert (summary["before"]["mean_at_2"], summary["after"]["mean_at_2"]) != (None, None)


def test_a_finished_run_is_not_overwritten(finished: Folder) -> None:
    with pytest.raises(ConfigError, match="holds a run already"):
        train.run(finished.config)


def test_resuming_goes_on(finished: Folder, resumed: Resumed) -> None:
    folder, size = resumed.folder, resumed.folder.config.algo.prompts_per_step
    assert resumed.version == BROKEN
    assert [row["step"] for row in read_metrics(folder.path).rows] == list(range(1, MORE + 1))
    assert [result.step for result in read_evals(folder.path)] == [0, 2, 4, 6]
    raw = folder.lines("fates.jsonl")
    assert [row["step"] for row in folder.lines("metrics.jsonl")] == list(range(1, MORE + 1))  # none stands twice
    fates = json.loads((folder.path / "summary.json").read_text())["fates"]
    assert sorted(row["uid"] for row in raw) == list(range(fates["admitted"]))
    assert len(read_fates(folder.path).rows) == len(raw)
    assert fates["admitted"] == sum(fates[fate] for fate in (*FINAL, "in_flight"))
    assert fates["trained"] == MORE * size
    # Prompts that were in flight at the break keep the version at which they were admitted, and are first in line.
    state = json.loads((finished.path / "checkpoints" / f"step_{BROKEN:06d}" / "driver.json").read_text())
    waiting = {row["uid"]: row["admitted_version"] for row in state["ledger"]["open"]}
    assert waiting
    ended = {row["uid"]: row["admitted_version"] for row in raw if row["fate"] in FINAL}
    assert waiting.items() <= ended.items()


def test_the_weights_at_resumption_are_those_saved(finished: Folder, resumed: Resumed) -> None:
    from safetensors.torch import load_file

    saved = load_file(finished.hf(BROKEN) / "model.safetensors")
    restored = unpack(resumed.weights)
    assert resumed.weights.version == BROKEN
    assert saved.keys() == restored.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in restored.items())
    later = load_file(resumed.folder.hf(MORE) / "model.safetensors")
    assert max(float((later[name] - tensor).abs().max()) for name, tensor in saved.items()) > 1e-4


def test_the_export_is_a_hugging_face_model(
    finished: Folder, resumed: Resumed, paths: Paths, shared_engine: VllmEngine, prompts: list[EncodedPrompt]
) -> None:
    """Plain transformers, from the export alone, gives the logprobs of an engine that was pushed those weights."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = finished.hf(BROKEN)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor, tokenizer = AutoProcessor.from_pretrained(folder), PromptEncoder(folder, PROMPTS).tokenizer
    samples = read_samples(paths.eval)
    chosen = [0, len(samples) - 1]
    requests = [request(f"hf{i}", prompts[i], n=2, seed=i, max_tokens=16) for i in chosen]

    async def sample() -> list[Any]:
        """(prompt ids, response, its logprobs) of every rollout."""
        await shared_engine.update_weights(resumed.weights)
        groups = await asyncio.gather(*map(shared_engine.generate, requests))
        rollouts = [(i, group, rollout) for i, group in zip(chosen, groups, strict=True) for rollout in group.rollouts]
        return [
            (g.prompt_ids, r.token_ids, await shared_engine.score(prompts[i].token_ids, prompts[i].images, r.token_ids))
            for i, g, r in rollouts
        ]

    scored = asyncio.run(sample())
    for k, (prompt_ids, response, scores) in enumerate(scored):
        sample_ = samples[chosen[k // 2]]
        text = render_prompt(sample_, PROMPTS, "<|vision_start|><|image_pad|><|vision_end|>", tokenizer=tokenizer)
        images = [decode_image(data, PROMPTS.max_pixels) for data in sample_.images]
        inputs = processor(text=[text], images=images or None, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == prompt_ids.tolist()
        ids = torch.cat([inputs["input_ids"], torch.from_numpy(response.astype(np.int64))[None]], dim=1)
        inputs["input_ids"], inputs["attention_mask"] = ids, torch.ones_like(ids)
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).to(inputs["mm_token_type_ids"].dtype)
        with torch.no_grad():
            logits = model(**inputs).logits[0, len(prompt_ids) - 1 : -1]
        logprobs = torch.log_softmax(logits, -1).gather(-1, ids[0, len(prompt_ids) :, None])[:, 0]
        assert differences([logprobs.numpy()], [scores]).max() < MAX_DELTA
