"""The FastAPI application: routes, and how errors become responses. The pool is the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import rewards
from rewards.base import RewardResult, UnknownVerifier
from rewards.limits import deadlines
from rewards.listing import listing
from rewards.service.gate import Gate, error_body, refusal_headers
from rewards.service.load import Load, Refused
from rewards.service.metrics import Metrics
from rewards.service.models import (
    BatchRequest,
    BatchResponse,
    ErrorResponse,
    HealthResponse,
    Limits,
    ScoreRequest,
    ScoreResponse,
    VerifierInfo,
    VerifiersResponse,
)
from rewards.service.settings import ServiceSettings
from rewards.worker import PoolError

SHOWN_PROBLEMS = 5
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "The token is missing or wrong."},
    413: {"model": ErrorResponse, "description": "More than one request may hold; see limits."},
    422: {"model": ErrorResponse, "description": "Not a request, or an answer type that nobody knows."},
    429: {"model": ErrorResponse, "description": "No room now; the header Retry-After says when to come back."},
    503: {"model": ErrorResponse, "description": "The service shuts down, or its workers can't be started."},
}


class Pool(Protocol):
    """What is used of `rewards.RewardPool`."""

    async def ascore_many(self, requests: Sequence[rewards.Request]) -> list[RewardResult]: ...


def create_app(settings: ServiceSettings, pool: Pool, load: Load) -> Gate:
    """The ASGI application of the service."""
    app = FastAPI(
        title="rewards",
        version=rewards.__version__,
        description="Grades completions of language models in processes that can be killed.",
    )
    metrics = Metrics(load)
    info = _info(settings)
    health = _Health(load)

    async def grade(wanted: Sequence[ScoreRequest]) -> list[ScoreResponse]:
        requests = [rewards.Request(r.completion, r.answer, r.answer_type, r.prompt, r.sample) for r in wanted]
        with load.admitted(len(requests)):
            try:
                results = await pool.ascore_many(requests)
            except PoolError as exc:
                health.broken = True
                raise Refused(503, "broken", str(exc)) from exc
        metrics.results(zip((request.answer_type for request in requests), results, strict=True))
        return [
            ScoreResponse(value=r.value, status=r.status, components=r.components, detail=_printable(r.detail))
            for r in results
        ]

    @app.post("/v1/score", responses=ERRORS, summary="Grade one completion")
    async def score(request: ScoreRequest) -> ScoreResponse:
        return (await grade([request]))[0]

    @app.post("/v1/score_batch", responses=ERRORS, summary="Grade several completions, results in their order")
    async def score_batch(batch: BatchRequest) -> BatchResponse:
        return BatchResponse(results=await grade(batch.requests))

    @app.get("/v1/verifiers", responses={401: ERRORS[401]}, summary="What can be graded, and how much at once")
    async def verifiers() -> VerifiersResponse:
        return info

    @app.get("/healthz", responses={503: {"model": HealthResponse}}, summary="Whether new work is taken")
    async def healthz(response: Response) -> HealthResponse:
        found = health.read()
        response.status_code = 200 if found.status == "ok" else 503
        return found

    @app.get("/metrics", response_class=Response, summary="Counters for Prometheus")
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=metrics.content_type)

    _handle_errors(app)
    return Gate(app, settings, load, metrics)


def _info(settings: ServiceSettings) -> VerifiersResponse:
    listed = listing(settings.plugins)
    seconds = deadlines(settings.timeout_s, settings.timeouts, [item.name for item in listed])
    return VerifiersResponse(
        verifiers=[
            VerifierInfo(name=item.name, origin=item.origin, missing=list(item.missing), timeout_s=seconds[item.name])
            for item in listed
        ],
        limits=Limits(max_batch=settings.max_batch, max_body_bytes=settings.max_body_bytes),
    )


class _Health:
    def __init__(self, load: Load) -> None:
        self._load = load
        self.broken = False

    def read(self) -> HealthResponse:
        if self.broken:
            return HealthResponse(status="broken")
        return HealthResponse(status="draining" if self._load.draining else "ok")


def _handle_errors(app: FastAPI) -> None:
    """Every error in one form, and nothing of a request's content in it."""

    @app.exception_handler(Refused)
    async def refused(_: Request, exc: Refused) -> JSONResponse:
        return JSONResponse(error_body(exc.code, exc.message), exc.status, refusal_headers(exc))

    @app.exception_handler(UnknownVerifier)
    async def unknown(_: Request, exc: UnknownVerifier) -> JSONResponse:
        return JSONResponse(error_body("unknown_verifier", _printable(str(exc))), 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()]
        more = f" and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        return JSONResponse(error_body("invalid", _printable("; ".join(problems[:SHOWN_PROBLEMS]) + more)), 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, exc: HTTPException) -> JSONResponse:
        return JSONResponse(error_body("http", _printable(str(exc.detail))), exc.status_code, exc.headers)


def _printable(text: str) -> str:
    """Text that can be sent as UTF-8: details may quote half a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")
