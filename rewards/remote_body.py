"""What the client of the service sends and what it makes of the answers: bodies, batches, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rewards.base import RewardResult
from rewards.request import Request
from rewards.worker import PoolError

if TYPE_CHECKING:
    import httpx

MAX_BATCH = 64
MAX_BATCH_BYTES = 4 * 2**20
MAX_BATCH_S = 60.0
"""Seconds that one batch may take on one worker: a longer one would come back late, and all of it lost with it."""
USUAL_S = 1.0
"""Deadline of an answer type where the service names none."""
_AROUND = 100
"""Bytes of a body besides its requests."""


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What a service says of itself at `/v1/verifiers`."""

    max_batch: int
    max_body_bytes: int
    missing: Mapping[str, Sequence[str]]
    """Answer type -> libraries that it lacks there."""
    seconds: Mapping[str, float]
    """Answer type -> deadline of one result."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One request as JSON, and how long the service may take for it."""

    body: bytes
    seconds: float


def pack(request: Request, limits: ServiceLimits) -> Packed:
    """
    Raises:
        ValueError: `sample` holds what JSON has no form for.
    """
    answer = request.answer if isinstance(request.answer, str) else list(request.answer)
    row = {"completion": request.completion, "answer": answer, "answer_type": request.answer_type}
    if request.prompt is not None:
        row["prompt"] = request.prompt
    if request.sample is not None:
        row["sample"] = dict(request.sample)  # type: ignore[assignment]
    try:  # NaN and Infinity go as Python writes them, which our service reads: a table's empty cell is often one
        try:
            body = json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can only escape
            body = json.dumps(row).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"the request can't be sent as JSON: {exc}; put plain data into `sample`") from exc
    return Packed(body, limits.seconds.get(request.answer_type, USUAL_S))


def parts(packed: Sequence[Packed], limits: ServiceLimits) -> Iterator[tuple[int, Sequence[Packed]]]:
    """(position of the first, requests) of each body to send."""
    most = min(MAX_BATCH, limits.max_batch)
    most_bytes = min(MAX_BATCH_BYTES, limits.max_body_bytes)
    start, size, seconds = 0, _AROUND, 0.0
    for i, item in enumerate(packed):
        size += len(item.body) + 2
        seconds += item.seconds
        if i > start and (i - start >= most or size > most_bytes or seconds > MAX_BATCH_S):
            yield start, packed[start:i]
            start, size, seconds = i, _AROUND + len(item.body) + 2, item.seconds
    if packed:
        yield start, packed[start:]


def too_long(part: Sequence[Packed], limits: ServiceLimits) -> bool:
    """True for a single request that the service would not read."""
    return len(part) == 1 and len(part[0].body) + _AROUND > limits.max_body_bytes


def batch_body(part: Sequence[Packed]) -> bytes:
    return b'{"requests": [' + b", ".join(item.body for item in part) + b"]}"


def read_limits(response: httpx.Response) -> ServiceLimits:
    """
    Raises:
        PoolError: the answer is not one of this service.
    """
    try:
        found = response.json()
        rows, limits = found["verifiers"], found["limits"]
        return ServiceLimits(
            int(limits["max_batch"]),
            int(limits["max_body_bytes"]),
            {row["name"]: row["missing"] for row in rows},
            {row["name"]: float(row["timeout_s"]) for row in rows if "timeout_s" in row},
        )
    except (ValueError, LookupError, TypeError) as exc:
        raise _not_the_service(response) from exc


def read_results(response: httpx.Response, count: int) -> list[RewardResult]:
    """
    Raises:
        PoolError: not `count` results.
    """
    try:
        rows = response.json()["results"]
        results = [RewardResult(row["value"], row["status"], row["components"], row["detail"]) for row in rows]
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise _not_the_service(response) from exc
    if len(results) != count:
        raise PoolError(f"{response.url} gave {len(results)} results for {count} requests; is this the reward service?")
    return results


def refusal(response: httpx.Response) -> tuple[str, str]:
    """(code, message) of an answer that is not 200; the body's beginning where it is none of the service's."""
    try:
        error = response.json()["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, LookupError, TypeError):
        return "", response.text[:200]


def retry_after(response: httpx.Response) -> float:
    """Seconds, 0 where the answer does not say."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _not_the_service(response: httpx.Response) -> PoolError:
    return PoolError(
        f"{response.url} did not answer as the reward service does: {response.text[:100]!r}; check the url"
    )
