"""Whether gold answers hold: they must score 1 under their own reward, and policies must not agree on another one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from rewards import Request, RewardPool, UnknownVerifier, registry
from rl.config.clean import GoldChecks
from rl.curate.attempts import read_attempts
from rl.curate.gather import gather
from rl.records import RIGHT, Sample


class GoldGrader:
    """Grades gold answers in processes that can be killed."""

    def __init__(self, checks: GoldChecks) -> None:
        self._checks = checks
        self._pool: RewardPool | None = None

    def problems(self, samples: Sequence[Sample]) -> list[tuple[str, str] | None]:
        """(reason, detail) where none of a sample's golds holds: `no_verifier`, `bad_gold` or `ungradable_gold`."""
        found: list[tuple[str, str] | None] = [None] * len(samples)
        if not self._checks.verify:
            return found
        requests, owners = [], []
        for i, sample in enumerate(samples):
            try:
                registry.resolve(sample.answer_type)
            except UnknownVerifier as exc:
                found[i] = ("no_verifier", str(exc))
                continue
            if _names_no_option(sample):
                found[i] = ("bad_gold", f"{sample.answers[0][:80]!r} names none of the options")
                continue
            options = sample.extra.get("options")
            row = {"options": tuple(options) if options is not None else None, "prompt_type": sample.prompt_type}
            for answer in sample.answers:
                text = f"<answer>{answer}</answer>"
                requests.append(Request(text, answer, sample.answer_type, sample.problem, row))
                owners.append((i, answer))
        results = self._workers().score_many(requests) if requests else []
        sound = {
            i for (i, _), result in zip(owners, results, strict=True) if result.value is not None and result.value >= 1
        }
        for (i, answer), result in zip(owners, results, strict=True):
            if i in sound or found[i] is not None:
                continue
            reason = "ungradable_gold" if result.status in ("error", "timeout") else "bad_gold"
            found[i] = (reason, f"{answer[:80]!r}: {result.status}, value {result.value}: {result.detail}")
        return found

    def __enter__(self) -> GoldGrader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    def _workers(self) -> RewardPool:
        if self._pool is None:
            checks = self._checks
            self._pool = RewardPool(checks.processes, checks.timeout_s, checks.memory_mb)
        return self._pool


def _names_no_option(sample: Sample) -> bool:
    """The verifier falls back to comparing texts, so that a gold which is no option would score 1 and never be met."""
    if sample.answer_type != "multiple-choice":
        return False
    from rewards.verifiers.multiple_choice import letters, options_of

    options = options_of(sample.extra)
    picks = (letters(answer, options) for answer in sample.answers)
    return bool(options) and not any(pick is not None and pick <= set(options) for pick in picks)


def disputed(checks: GoldChecks, index: Mapping[str, int], count: int) -> dict[int, str]:
    """Row (of `count`) -> detail, where no attempt is right and most of them agree on one answer."""
    if not checks.disputed_by:
        return {}
    folders = [Path(path) for path in checks.disputed_by]
    gathered = gather(folders, index, count)
    policy = gathered.of(checks.policy)
    rewards = gathered.rewards[policy]
    valid = np.count_nonzero(~np.isnan(rewards), axis=1)
    hopeless = (valid >= checks.min_attempts) & ~(rewards >= RIGHT).any(axis=1)
    answers: dict[int, dict[int, str]] = {row: {} for row in np.flatnonzero(hopeless).tolist()}
    for batch in read_attempts(folders, ("id", "policy", "attempt", "answer")):
        columns = (batch.column(name) for name in ("id", "policy", "attempt", "answer"))
        ids, policies, attempts, texts = columns
        row_of = np.array([index.get(name, -1) for name in ids.dictionary.to_pylist()], dtype=np.int64)
        rows = row_of[ids.indices.to_numpy()]
        wanted = np.flatnonzero((rows >= 0) & np.append(hopeless, False)[rows])
        for place in wanted.tolist():
            text = texts[place].as_py()
            if text is not None and policies[place].as_py() == policy:
                answers[int(rows[place])][attempts[place].as_py()] = re.sub(r"[\s$]+", "", text).casefold()
    result = {}
    for row, given in answers.items():
        if given:
            answer, votes = Counter(given.values()).most_common(1)[0]
            if votes >= checks.agreement * valid[row]:
                result[row] = f"no attempt is right, and {votes} of {valid[row]} say {answer[:80]!r}"
    return result
