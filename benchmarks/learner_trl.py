"""TRL's side of `benchmarks/learner.py`, run by the interpreter of TRL's own environment.

    python benchmarks/learner_trl.py FOLDER SEQUENCES_PER_MICRO_BATCH

Imports nothing of this project. Every step is one generation batch, TRL's default; `rollout_func`, TRL's hook for other
engines, hands over the recorded completions. The last line printed is JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class MeteredTrainer(GRPOTrainer):
    """Counts positions, and the CPU seconds of what comes before a forward pass."""

    aside = 0.0
    positions = 0
    tokens = 0

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = time.process_time()
        made = super()._generate_and_score_completions(inputs)
        self.aside += time.process_time() - start
        return made

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self.positions += inputs["prompt_ids"].numel() + inputs["completion_ids"].numel()
        self.tokens += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        return super()._compute_loss(model, inputs)


class Meter(TrainerCallback):
    """Of each step: CPU seconds, tokens, positions and gradient norm."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.rows: list[dict[str, float]] = []
        self.norms: list[float] = []

    def _now(self) -> dict[str, float]:
        trainer = self.trainer
        return {
            "seconds": time.process_time() - trainer.aside,
            "tokens": trainer.tokens,
            "positions": trainer.positions,
        }

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.rows.append({key: value - self.began[key] for key, value in self._now().items()})

    def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
        if "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def main(folder: Path, size: int) -> None:
    torch.set_num_threads(1)
    steps = json.loads((folder / "steps.json").read_text())
    groups = {f"{s}-{g}": group for s, step in enumerate(steps) for g, group in enumerate(step)}
    group_size, sequences = len(steps[0][0]["completions"]), sum(len(g["completions"]) for g in steps[0])

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        """Each prompt comes `group_size` times in a row."""
        chosen = [(groups[prompt], i % group_size) for i, prompt in enumerate(prompts)]
        return {
            "prompt_ids": [group["prompt"] for group, _ in chosen],
            "completion_ids": [group["completions"][i] for group, i in chosen],
            "logprobs": None,
            "score": [group["rewards"][i] for group, i in chosen],
        }

    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=sequences // size,
        num_generations=group_size,
        max_completion_length=max(len(ids) for group in groups.values() for ids in group["completions"]),
        scale_rewards="none",
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_steps=len(steps),
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    meter = Meter()
    trainer = MeteredTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        reward_funcs=lambda score, **_: score,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": name} for name in groups]),
        processing_class=AutoTokenizer.from_pretrained(folder / "model", padding_side="left"),
        callbacks=[meter],
        rollout_func=rollout,
    )
    meter.trainer = trainer
    before = psutil.Process().memory_info().rss / 2**30
    trainer.train()
    rows = meter.rows[1:]
    result = {
        "seconds": [row["seconds"] for row in rows],
        "tokens": [row["tokens"] for row in rows],
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before,
        "padding_share": 1 - sum(row["tokens"] for row in rows) / sum(row["positions"] for row in rows),
        "grad_norm": meter.norms[0],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
