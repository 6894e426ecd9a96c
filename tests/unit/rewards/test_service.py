"""The HTTP service, as a client sees it: results, limits, tokens, back-pressure, and the drain."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")

from rewards.service.load import Load, Refused
from rewards.service.settings import ServiceSettings
from tests.unit.rewards.serving import ROOT, TOKEN, WAITS, Served, served, wait_for_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

RIGHT = {"completion": "<answer>4</answer>", "answer": "4", "answer_type": "number"}
WRONG = {**RIGHT, "answer": "5"}


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugins") / "waiting.py"
    path.write_text(WAITS)
    return path


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served("--timeout", "5", "--max-batch", "8", "--max-body-mb", "0.01") as made:
        yield made


def wait_task(path: Path) -> dict[str, str]:
    return {"completion": str(path), "answer": "", "answer_type": "wait"}


def test_a_completion_is_graded(service: Served) -> None:
    response = service.post("/v1/score", RIGHT)
    assert response.status_code == 200
    assert response.json() == {
        "value": 1.0,
        "status": "ok",
        "components": {"format": 0.0, "accuracy": 1.0},
        "detail": "'4' against '4'",
    }


def test_a_batch_is_graded_in_order(service: Served) -> None:
    several = {**RIGHT, "answer": ["3", "4"], "prompt": "2 + 2?", "sample": {"prompt_type": "normal"}}
    invalid = {**RIGHT, "answer": "four-ish"}
    nothing = {**RIGHT, "completion": "four"}
    response = service.post("/v1/score_batch", {"requests": [RIGHT, WRONG, several, invalid, nothing]})
    results = response.json()["results"]
    assert [row["value"] for row in results] == [1.0, 0.0, 1.0, None, 0.0]
    assert [row["status"] for row in results] == ["ok", "ok", "ok", "invalid_gold", "no_answer"]
    assert results[2]["components"]["format"] == 1.0
    assert service.post("/v1/score_batch", {"requests": []}).json() == {"results": []}


def test_hostile_text_comes_through(service: Served) -> None:
    power = {"completion": "<answer>9^{9^{9^9}}</answer>", "answer": "3", "answer_type": "math-expressions"}
    assert service.post("/v1/score", power).json()["value"] == 0.0
    half = b'{"completion": "<answer>a\\ud800</answer>", "answer": "a\\ud800", "answer_type": "string"}'
    assert service.post("/v1/score", content=half, headers={"Content-Type": "application/json"}).json()["value"] == 1.0
    nul = {**RIGHT, "completion": "<answer>\x00\u202e4</answer>", "answer_type": "string"}
    assert service.post("/v1/score", nul).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "code", "said"),
    [
        (b"{", 422, "invalid", "JSON"),
        (b"[" * 9_000, 400, "http", "parsing the body"),
        (b"[]", 422, "invalid", "valid dictionary"),
        (b'{"completion": "a", "answer": "b"}', 422, "invalid", "body.answer_type: Field required"),
        (b'{"completion": "a", "answer": "b", "answer_type": "any", "x": 1}', 422, "invalid", "body.x: Extra inputs"),
        (b'{"completion": 1, "answer": "b", "answer_type": "any"}', 422, "invalid", "body.completion"),
        (b'{"completion": "a", "answer": "b", "answer_type": "numbr"}', 422, "unknown_verifier", "did you mean number"),
        (b'{"completion": "a", "answer": "b", "answer_type": "os:system"}', 422, "unknown_verifier", "where code is"),
        (b'{"completion": "a", "answer": NaN, "answer_type": "any"}', 422, "invalid", "body.answer"),
    ],
)
def test_what_is_no_request_is_refused(service: Served, content: bytes, status: int, code: str, said: str) -> None:
    response = service.post("/v1/score", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    assert said in response.json()["error"]["message"]


def test_limits_of_one_request(service: Served) -> None:
    many = service.post("/v1/score_batch", {"requests": [RIGHT] * 9})
    assert (many.status_code, many.json()["error"]["code"]) == (413, "too_large")
    assert "9 completions in one request; at most 8" in many.json()["error"]["message"]
    long = service.post("/v1/score", {**RIGHT, "completion": "x" * 20_000})
    assert (long.status_code, long.json()["error"]["code"]) == (413, "too_large")

    def chunks() -> Iterator[bytes]:  # no Content-Length
        for _ in range(30):
            yield b"x" * 1_000

    streamed = service.post("/v1/score", content=chunks())
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (413, "too_large")
    assert service.get("/v1/verifiers").json()["limits"] == {"max_batch": 8, "max_body_bytes": 10485}


def test_verifiers_are_listed(service: Served) -> None:
    rows = {row["name"]: row for row in service.get("/v1/verifiers").json()["verifiers"]}
    assert rows["number"] == {"name": "number", "origin": "built in", "missing": [], "timeout_s": 5.0}
    assert rows["general-code"]["timeout_s"] == 60.0


def test_metrics_count(service: Served) -> None:
    def read() -> dict[str, float]:
        lines = [line for line in service.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    name = 'rewards_results_total{answer_type="boolean",status="ok"}'
    paths = 'rewards_http_requests_total{path="other",status="404"}'
    before = read()
    task = {"completion": "<answer>no</answer>", "answer": "no", "answer_type": "boolean"}
    service.post("/v1/score_batch", {"requests": [task] * 3})
    service.get("/v1/nothing")
    after = read()
    assert after[name] - before.get(name, 0) == 3
    assert after[paths] - before.get(paths, 0) == 1
    assert after["rewards_completions_in_flight"] == 0
    assert after["rewards_body_bytes_held"] == 0


def test_the_schema_describes_the_routes(service: Served) -> None:
    schema = service.get("/openapi.json").json()
    assert {"/v1/score", "/v1/score_batch", "/v1/verifiers", "/healthz", "/metrics"} <= schema["paths"].keys()
    fields = schema["components"]["schemas"]["ScoreRequest"]["properties"]
    assert all("description" in field for field in fields.values())


def test_a_token_opens_everything_but_the_health_check() -> None:
    with served("--host", "0.0.0.0", env={"REWARDS_TOKEN": TOKEN}) as service:
        assert service.get("/healthz").json() == {"status": "ok"}
        for path in ("/v1/verifiers", "/metrics", "/openapi.json", "/docs"):
            assert service.get(path).status_code == 401
        for wrong in ({}, {"Authorization": "Bearer nope"}, {"Authorization": TOKEN}, {"Authorization": "Bearer"}):
            refused = service.post("/v1/score", RIGHT, headers=wrong)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert service.post("/v1/score", RIGHT, headers=good).json()["value"] == 1.0


@pytest.mark.parametrize(
    ("host", "token", "said"),
    [
        ("0.0.0.0", None, "can be reached from other machines, and there is no token"),
        ("::", None, "no token"),
        ("10.0.0.7", None, "no token"),
        ("rewards.example", None, "no token"),
        ("127.0.0.1", "short", "at least 16 characters"),
        ("0.0.0.0", "with spaces in the token", "visible ASCII"),
    ],
)
def test_an_open_address_without_a_good_token_is_refused(host: str, token: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ServiceSettings(host=host, token=token)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_loopback_address_needs_no_token(host: str) -> None:
    assert ServiceSettings(host=host).token is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "there is no token"),
        (["--memory", "600"], "memory_mb is 600, and general-code needs 1024"),
        (["--workers", "0"], "workers is 0"),
        (["--timeout-for", "number"], "'number' is not of the form TYPE=SECONDS"),
        (["--timeout-for", "numbr=3"], "did you mean number"),
    ],
)
def test_the_command_refuses_to_start_with_what_can_not_work(options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "rewards", "serve", "--port", "0", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2, run.stderr
    assert said in run.stderr


def test_the_drain_lasts_as_long_as_the_slowest_result() -> None:
    assert ServiceSettings().drain_limit_s == 65.0  # general-code's 60, and 5 to kill and to answer
    assert ServiceSettings(timeout_s=100.0).drain_limit_s == 105.0
    assert ServiceSettings(timeouts={"general-code": 20.0, "number": 90.0}).drain_limit_s == 95.0
    assert ServiceSettings(timeouts={"general-code": 20.0}, timeout_s=2.0).drain_limit_s == 25.0
    assert ServiceSettings(drain_s=0.5).drain_limit_s == 0.5
    now = 0.0
    load = Load(ServiceSettings(), clock=lambda: now)
    load.requests = 1
    load.drain()
    now = 64.0
    assert not load.drained()
    now = 65.0
    assert load.drained()


def test_a_full_queue_is_429_and_says_when_to_come_back(waiting: Path, tmp_path: Path) -> None:
    options = ("--plugin", f"wait={waiting}", "--max-queue", "4", "--max-batch", "4", "--timeout", "60")
    with served(*options) as service, ThreadPoolExecutor() as threads:
        go = tmp_path / "go"
        held = threads.submit(service.post, "/v1/score_batch", {"requests": [wait_task(go)] * 3})
        wait_for_file(tmp_path / "go.begun")
        refused = service.post("/v1/score_batch", {"requests": [RIGHT, RIGHT]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert service.get("/healthz").status_code == 200
        go.touch()
        assert [row["value"] for row in held.result().json()["results"]] == [1.0] * 3
        assert service.post("/v1/score_batch", {"requests": [RIGHT, RIGHT]}).status_code == 200


def test_a_client_that_hangs_up_makes_room(waiting: Path, tmp_path: Path) -> None:
    options = ("--plugin", f"wait={waiting}", "--max-queue", "4", "--max-batch", "4", "--timeout", "60")
    with served(*options) as service:
        body = {"requests": [wait_task(tmp_path / "never")] * 4}

        async def leave() -> None:
            async with httpx.AsyncClient(trust_env=False) as client:
                task = asyncio.ensure_future(client.post(service.url + "/v1/score_batch", json=body, timeout=60))
                await asyncio.to_thread(wait_for_file, tmp_path / "never.begun")
                task.cancel()

        asyncio.run(leave())
        end = time.monotonic() + 30
        while "rewards_clients_hung_up_total 1.0" not in service.get("/metrics").text:
            assert time.monotonic() < end
        assert "rewards_completions_in_flight 0.0" in service.get("/metrics").text


def test_sigterm_finishes_what_is_in_flight(waiting: Path, tmp_path: Path) -> None:
    with served("--plugin", f"wait={waiting}", "--timeout", "60") as service, ThreadPoolExecutor() as threads:
        go = tmp_path / "go"
        held = threads.submit(service.post, "/v1/score", wait_task(go))
        wait_for_file(tmp_path / "go.begun")
        service.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 30
        while (health := service.get("/healthz")).status_code == 200:
            assert time.monotonic() < end
        assert (health.status_code, health.json()) == (503, {"status": "draining"})
        refused = service.post("/v1/score", RIGHT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert "retry-after" in refused.headers
        go.touch()
        assert held.result().json()["value"] == 1.0
        assert service.process.wait(timeout=30) == 0


def test_the_drain_has_an_end(waiting: Path, tmp_path: Path) -> None:
    with served("--plugin", f"wait={waiting}", "--timeout", "60", "--drain", "0.2") as service:
        caught: list[Exception] = []

        def ask() -> None:
            try:
                service.post("/v1/score", wait_task(tmp_path / "never")).raise_for_status()
            except httpx.HTTPError as exc:
                caught.append(exc)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for_file(tmp_path / "never.begun")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=40) == 0
        thread.join()
        assert len(caught) == 1


def test_admission_by_hand() -> None:
    now = 100.0
    settings = ServiceSettings(
        max_batch=10, max_queue=20, max_body_bytes=50, max_held_bytes=100, workers=2, timeout_s=4.0, drain_s=5.0
    )
    load = Load(settings, clock=lambda: now)
    with load.admitted(10), load.admitted(10):
        with pytest.raises(Refused) as busy, load.admitted(1):
            pass
        # nothing finished in the last 10 s: 2 workers at 4 s each are 0.5/s, so 20 completions take 40 s
        assert (busy.value.status, busy.value.retry_after_s) == (429, 40)
    with load.admitted(10), load.admitted(10), pytest.raises(Refused) as busy, load.admitted(1):
        pass
    assert busy.value.retry_after_s == 10  # 20 finished in the last 10 s: 2/s, and 20 are waiting
    with pytest.raises(Refused) as large, load.admitted(11):
        pass
    assert large.value.status == 413
    load.hold(100)
    with pytest.raises(Refused, match="100 bytes"):
        load.hold(1)
    load.requests = 1
    load.drain()
    assert load.draining and not load.drained()
    now = 104.9
    assert not load.drained()
    now = 105.0
    assert load.drained()
