"""Small pools of candidates with attempts whose rewards are written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rl.curate.attempts import FOLDER, Attempt, AttemptWriter
from rl.data.formats import write_samples
from rl.records import Sample


def sample(sample_id: str, source: str = "chart", problem_type: str = "ocr", **changes: Any) -> Sample:
    values: dict[str, Any] = {"problem": f"What is {sample_id}?", "answers": ("4",), "images": ()}
    values |= {"problem_type": problem_type, "answer_type": "number", "source": source} | changes
    return Sample(id=sample_id, **values)


def attempts(
    sample_id: str, rewards: Sequence[float | None], policy: str = "p", first: int = 0, answer: str = "4"
) -> list[Attempt]:
    return [
        Attempt(sample_id, policy, i, 100 + i, reward, "timeout" if reward is None else "ok", 7, "stop", answer)
        for i, reward in enumerate(rewards, start=first)
    ]


def right_of(right: int, n: int = 8) -> list[float | None]:
    return [1.0] * right + [0.0] * (n - right)


def store(
    folder: Path,
    rewards: Mapping[str, Sequence[float | None]],
    policy: str = "p",
    answers: Mapping[str, str] | None = None,
) -> Path:
    with AttemptWriter(folder / FOLDER) as writer:
        for sample_id, values in rewards.items():
            writer.append(attempts(sample_id, values, policy, answer=(answers or {}).get(sample_id, "4")))
    return folder


@pytest.fixture()
def pool(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """(candidates file, attempts folder) of samples with the number of right attempts out of 8."""

    def make(right: Mapping[str, int], samples: Sequence[Sample] | None = None) -> tuple[Path, Path]:
        path = tmp_path / "candidates.parquet"
        write_samples(samples or [sample(name) for name in right], path)
        return path, store(tmp_path / "profiled", {name: right_of(count) for name, count in right.items()})

    return make
