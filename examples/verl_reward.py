"""verl with rewards from the service.

    rewards serve --port 8000 &
    python examples/verl_reward.py --demo

In a run, with a data set that `rl data convert DATA OUT.parquet --to verl` wrote, or any whose data_source is in
ANSWER_TYPES below:

    python -m verl.trainer.main_ppo reward.custom_reward_function.path=examples/verl_reward.py ...

(older versions: custom_reward_function.path). verl calls `compute_score` for each completion, in threads of its own,
and takes a number or a mapping with `score`. It has no place for a completion without a reward: one that could not be
graded gets 0, and `reward_failed` counts it in verl's metrics. The demo calls it as verl does and needs no verl.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rewards import RemotePool

ANSWER_TYPES = {
    "openai/gsm8k": "number",
    "lighteval/MATH": "math-expressions",
    "DigitalLearningGmbH/MATH-lighteval": "math-expressions",
    "HuggingFaceH4/MATH-500": "math-expressions",
}
"""Answer types of data sets that do not name one in extra_info."""


@functools.cache
def pool() -> RemotePool:
    """One client per process, from the environment: REWARDS_URL and, for a service elsewhere, REWARDS_TOKEN."""
    return RemotePool(os.environ.get("REWARDS_URL", "http://127.0.0.1:8000"), os.environ.get("REWARDS_TOKEN"))


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Sequence[str],
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> dict[str, float]:
    """The reward of one completion.

    Args:
        data_source: name of the data set.
        solution_str: the completion as text.
        ground_truth: `reward_model.ground_truth` of the row.
        extra_info: of the row; `answer_type` and `prompt_type` are read.
    Raises:
        ValueError: neither the row nor ANSWER_TYPES says how to grade.
    """
    info = extra_info or {}
    answer_type = info.get("answer_type") or ANSWER_TYPES.get(data_source)
    if answer_type is None:
        raise ValueError(f"rows of {data_source!r} name no answer_type in extra_info; add the data set to ANSWER_TYPES")
    golds = ground_truth if isinstance(ground_truth, str) else list(ground_truth)
    sample = {"prompt_type": info["prompt_type"]} if info.get("prompt_type") else None
    result = pool().score(solution_str, golds, answer_type, sample=sample)
    return {"score": result.value or 0.0, "acc": result.value or 0.0, "reward_failed": float(result.value is None)}


def demo() -> None:
    """Call the reward function as verl does."""
    for text, gold in (
        ("<answer>12</answer>", "12"),
        ("<answer>11</answer>", "12"),
        ("<answer>12</answer>", "twelve-ish"),
    ):
        print(text, "against", gold, "gives", compute_score("openai/gsm8k", text, gold, {"split": "train", "index": 0}))
    row = {"answer_type": "multiple-choice", "prompt_type": "normal"}
    print("with an answer type:", compute_score("mine", "<answer>B</answer>", ["B"], extra_info=row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="verl reward function over the reward service.")
    parser.add_argument("--demo", action="store_true", required=True, help="call the service at REWARDS_URL")
    parser.parse_args()
    demo()
