"""TRL's GRPOTrainer with rewards from the service.

    rewards serve --port 8000 &
    python examples/trl_reward.py --demo

In a training script, with a data set whose columns are prompt, answer and answer_type
(`rl data convert DATA OUT.parquet --to trl` writes one):

    from trl_reward import reward_func
    GRPOTrainer(model=..., reward_funcs=reward_func, train_dataset=dataset, args=...).train()

TRL calls a reward function with lists of prompts, completions and the data set's columns, and takes a list of numbers;
None leaves a completion out, which is what a failed grader is. The demo calls it as TRL does and needs no TRL.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rewards import RemotePool, Request

Messages = Sequence[Mapping[str, Any]]


@functools.cache
def pool() -> RemotePool:
    """One client per process, from the environment: REWARDS_URL and, for a service elsewhere, REWARDS_TOKEN."""
    return RemotePool(os.environ.get("REWARDS_URL", "http://127.0.0.1:8000"), os.environ.get("REWARDS_TOKEN"))


def reward_func(
    prompts: Sequence[str | Messages],
    completions: Sequence[str | Messages],
    answer: Sequence[str | Sequence[str]],
    answer_type: Sequence[str],
    prompt_type: Sequence[str | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """The reward of each completion, in order; None where it could not be graded.

    Args:
        prompts, completions: texts, or lists of messages in a conversational data set.
        answer, answer_type, prompt_type: columns of the data set, one entry per completion.
        columns: what else TRL passes (completion_ids, trainer_state, other columns); not used.
    """
    kinds = prompt_type or [None] * len(completions)
    requests = [
        Request(_text(completion), gold, kind, _text(prompt), {"prompt_type": how} if how else None)
        for prompt, completion, gold, kind, how in zip(prompts, completions, answer, answer_type, kinds, strict=True)
    ]
    return [result.value for result in pool().score_many(requests)]


def _text(value: str | Messages) -> str:
    """The words of a text or of messages; parts that are images have none."""
    if isinstance(value, str):
        return value
    pieces: list[str] = []
    for message in value:
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
        pieces += parts
    return "".join(pieces)


def demo() -> None:
    """Call the reward function as TRL does, with a group of four completions."""
    texts = ["<answer>12</answer>", "<answer>11</answer>", "twelve, I think", r"So it is \boxed{12}"]
    group = {"answer": ["12"] * 4, "answer_type": ["number"] * 4, "completion_ids": [[1, 2]] * 4, "trainer_state": None}
    plain = reward_func(prompts=["7 + 5?"] * 4, completions=texts, **group)
    talk = [[{"role": "assistant", "content": text}] for text in texts]
    asked = [[{"role": "user", "content": [{"type": "text", "text": "7 + 5?"}]}]] * 4
    print("rewards:", plain)
    print("conversational:", reward_func(prompts=asked, completions=talk, **group))
    group["answer"] = ["twelve-ish"] * 4
    print("a gold answer that is no number:", reward_func(prompts=["7 + 5?"] * 4, completions=texts, **group))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="TRL reward function over the reward service.")
    parser.add_argument("--demo", action="store_true", required=True, help="call the service at REWARDS_URL")
    parser.parse_args()
    demo()
