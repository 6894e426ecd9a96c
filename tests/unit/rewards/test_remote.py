"""The client of the service: the same answers as a local pool, and patience with a service that is not there yet."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

import rewards.remote
from rewards import RemotePool, Request, RewardPool, UnknownVerifier
from rewards.worker import PoolError
from tests.unit.rewards.serving import TOKEN, WAITS, Served, free_port, served, wait_for_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

VERIFIERS = {
    "verifiers": [
        {"name": "number", "origin": "built in", "missing": []},
        {"name": "general-code", "origin": "built in", "missing": [], "timeout_s": 45.0},
        {"name": "smiles", "origin": "built in", "missing": ["rdkit"]},
    ],
    "limits": {"max_batch": 2, "max_body_bytes": 10_000},
}
GRADE = {"value": 1.0, "status": "ok", "components": {}, "detail": ""}


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugins") / "waiting.py"
    path.write_text(WAITS)
    return path


@pytest.fixture(scope="module")
def service(waiting: Path) -> Iterator[Served]:
    options = ("--host", "0.0.0.0", "--timeout", "5", "--max-batch", "16", "--plugin", f"wait={waiting}")
    with served(*options, env={"REWARDS_TOKEN": TOKEN}) as made:
        yield made


class Script(BaseHTTPRequestHandler):
    """Answers `/v1/score_batch` with what `reply` says: (status, headers, body), None for grades, status 0 hangs up."""

    answers: list[tuple[int, dict[str, str], Any]]
    """What the default `reply` goes through, the last one for ever."""
    seen: list[list[str]]
    """The completions of each request."""

    def do_GET(self) -> None:
        self._send(200, {}, VERIFIERS)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = [row["completion"] for row in body["requests"]]
        self.seen.append(texts)
        status, headers, answer = self.reply(texts)
        if status == 0:
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, headers, {"results": [GRADE] * len(texts)} if answer is None else answer)

    def reply(self, texts: list[str]) -> tuple[int, dict[str, str], Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def error(message: str, code: str = "busy") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


@pytest.fixture
def script() -> Iterator[type[Script]]:
    """A service that misbehaves as its list says; `url` is where it is."""
    kind = type("Scripted", (Script,), {"answers": [(200, {}, None)], "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kind
    server.shutdown()
    server.server_close()


REQUESTS = [
    Request("<answer>4</answer>", "4", "number"),
    Request("<answer>5</answer>", "4", "number"),
    Request("four", "4", "number"),
    Request("<answer>4</answer>", "four-ish", "number"),
    Request("<answer>b</answer>", ("a", "b"), "string", "Which?\n<think>", {"prompt_type": "normal"}),
    Request("<think></think><answer>\ud800\u202e</answer>", "\ud800", "string"),
    Request("<answer>[100, 100, 500, 500]</answer>", "[100, 100, 500, 400]", "bbox"),
    Request(r"\boxed{\frac{1}{2}}", "0.5", "math-expressions"),
]


def test_it_says_what_a_local_pool_says(service: Served) -> None:
    many = REQUESTS * 10  # more than the service takes at once
    with RewardPool(workers=1, timeout_s=5) as local, RemotePool(service.url, TOKEN) as remote:
        wanted = local.score_many(many)
        assert remote.score_many(many) == wanted
        assert remote.score_many([]) == []
        assert asyncio.run(remote.ascore_many(many)) == wanted
        task = ("<answer>4</answer>", "4", "number")
        assert remote.score(*task) == local.score(*task) == asyncio.run(remote.ascore(*task))


def test_numbers_that_json_lacks_reach_the_service(service: Served) -> None:
    with RemotePool(service.url, TOKEN) as pool:
        assert pool.score("<answer>4</answer>", "4", "number", sample={"x": float("nan")}).value == 1.0


def test_unknown_names_raise_as_locally(service: Served) -> None:
    with RemotePool(service.url, TOKEN) as pool:
        with pytest.raises(UnknownVerifier, match="did you mean number"):
            pool.score("a", "a", "numbr")
        with pytest.raises(ValueError, match="plain data"):
            pool.score("a", "a", "number", sample={"x": object()})
    with pytest.raises(UnknownVerifier, match=r"can't grade 'nonsense'; it knows any, bbox"):
        RemotePool(service.url, TOKEN, preload=["number", "nonsense"])


def test_a_wrong_token_is_not_tried_again(service: Served) -> None:
    for token in (None, "another token entirely"):
        with pytest.raises(PoolError, match="answered 401: the token is missing or wrong"):
            RemotePool(service.url, token, patience_s=60)


def test_calls_from_many_threads(service: Served) -> None:
    wrong: list[float | None] = []
    with RemotePool(service.url, TOKEN) as pool:

        def work(number: int) -> None:
            batch = [Request(f"<answer>{number}</answer>", str(number % 3), "number")] * 30
            wrong.extend(r.value for r in pool.score_many(batch) if r.value != float(number < 3))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_closing_fails_the_calls_in_flight(service: Served, tmp_path: Path) -> None:
    pool = RemotePool(service.url, TOKEN)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            pool.score(str(tmp_path / "never"), "", "wait")
        except PoolError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for_file(tmp_path / "never.begun")
    pool.close()
    pool.close()
    thread.join()
    assert len(caught) == 1
    with pytest.raises(PoolError, match="closed"):
        pool.score("a", "a", "number")


def test_it_waits_for_a_service_that_starts_later() -> None:
    port = free_port()
    made: list[float | None] = []

    def work() -> None:
        with RemotePool(f"http://127.0.0.1:{port}", patience_s=90) as pool:
            made.append(pool.score("<answer>4</answer>", "4", "number").value)

    thread = threading.Thread(target=work)
    thread.start()
    with served(port=port):
        thread.join()
    assert made == [1.0]


def test_a_service_that_stays_away_is_an_error_with_the_reason() -> None:
    with pytest.raises(PoolError, match=r"graded nothing for 0\.3 s .*the last try: ConnectError"):
        RemotePool(f"http://127.0.0.1:{free_port()}", patience_s=0.3)


def test_busy_draining_and_broken_connections_are_asked_again(script: Any) -> None:
    busy = error("full")
    script.answers = [(429, {"Retry-After": "0"}, busy), (503, {}, busy), (0, {}, None), (502, {}, {}), (200, {}, None)]
    with RemotePool(script.url, connections=1) as pool:
        assert pool.score("a", "a", "number").value == 1.0
    assert script.seen == [["a"]] * 5


def test_it_does_not_come_back_before_it_is_told(script: Any) -> None:
    script.answers = [(429, {"Retry-After": "1000"}, error("full for long"))]
    with RemotePool(script.url, patience_s=0.5) as pool, pytest.raises(PoolError, match="429: full for long"):
        pool.score("a", "a", "number")
    assert script.seen == [["a"]]


def test_a_busy_service_is_waited_for_as_long_as_it_grades_anything(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    arrived, others = threading.Semaphore(0), threading.Semaphore(0)
    monkeypatch.setattr(rewards.remote, "time", SimpleNamespace(monotonic=lambda: now))

    def reply(self: Any, texts: list[str]) -> tuple[int, dict[str, str], Any]:
        nonlocal now
        if texts == ["waits"] and script.seen.count(["waits"]) < 4:
            arrived.release()
            others.acquire()
            now += 60  # of a patience of 100
            return 429, {"Retry-After": "0"}, error("full")
        return 200, {}, None

    script.reply = reply
    with RemotePool(script.url, patience_s=100) as pool, ThreadPoolExecutor() as threads:
        waits = threads.submit(pool.score, "waits", "a", "number")
        for _ in range(3):
            arrived.acquire()
            assert pool.score("other", "a", "number").value == 1.0
            others.release()
        assert waits.result().value == 1.0
        assert now == 180
        script.seen.clear()
        others.release(2)  # and now nobody else is graded
        with pytest.raises(PoolError, match=r"graded nothing for 100 s \(patience_s\); the last try: 429: full"):
            pool.score("waits", "a", "number")


def test_the_log_says_what_is_waited_for(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards.remote, "NOTICE_S", 0.05)
    told: list[str] = []

    class Opens(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            script.answers = [(200, {}, None)]

    handler = Opens()
    rewards.remote.logger.addHandler(handler)
    try:
        script.answers = [(429, {}, error("the queue is full"))]
        with RemotePool(script.url) as pool:
            assert pool.score("a", "a", "number").value == 1.0
    finally:
        rewards.remote.logger.removeHandler(handler)
    assert f"{script.url} has graded nothing for 0 s; 1 requests wait for it" in told[0]
    assert "Giving up after 600 s" in told[0]


def test_batches_fit_the_service(script: Any) -> None:
    with RemotePool(script.url, connections=1) as pool:
        results = pool.score_many([Request("a" * 4_000, "a", "number")] * 3 + [Request("a", "a", "number")] * 4)
        assert [result.value for result in results] == [1.0] * 7
        # two of 4,000 bytes fit 10,000, as do two completions a request
        assert [len(texts) for texts in script.seen] == [2, 2, 2, 1]
        too_long = pool.score("a" * 20_000, "a", "number")
        assert (too_long.value, too_long.status) == (None, "error")
        assert "over the service's 10000" in too_long.detail
        script.seen.clear()
        assert len(pool.score_many([Request("a", "a", "general-code")] * 2)) == 2
        assert script.seen == [["a"], ["a"]]  # 45 s each: two might take longer than one request may


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_request_that_is_not_taken_fails_alone(script: Any, status: int) -> None:
    def reply(self: Any, texts: list[str]) -> tuple[int, dict[str, str], Any]:
        return (status, {}, error("no room for this one", "x")) if "bad" in texts else (200, {}, None)

    script.reply = reply
    texts = ["a", "bad", "b", "c", "bad", "bad", "d"]
    with RemotePool(script.url) as pool:
        results = pool.score_many([Request(text, "a", "number") for text in texts])
    assert [result.value for result in results] == [1.0, None, 1.0, 1.0, None, None, 1.0]
    assert results[1].status == "error"
    assert f"does not take this request: {status}: no room for this one" in results[1].detail


def test_a_service_that_fails_on_everything_is_broken(script: Any) -> None:
    script.answers = [(500, {}, "oops")]
    with RemotePool(script.url) as pool, pytest.raises(PoolError, match="answered 500"):
        pool.score_many([Request("a", "a", "number")] * 32)


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "set the token"), (403, "does not let this client in"), (404, "the url must be where"), (307, "307")],
)
def test_what_is_set_wrong_is_an_error_at_once(script: Any, status: int, said: str) -> None:
    script.answers = [(status, {}, {})]
    with RemotePool(script.url) as pool, pytest.raises(PoolError, match=said):
        pool.score("a", "a", "number")
    assert len(script.seen) == 1


@pytest.mark.parametrize(
    "body", [[], {}, {"results": 3}, {"results": [{}]}, {"results": [{**GRADE, "status": "fine"}]}, {"results": []}]
)
def test_an_answer_of_something_else_is_an_error(script: Any, body: Any) -> None:
    script.answers = [(200, {}, body)]
    with RemotePool(script.url) as pool, pytest.raises(PoolError, match=r"check the url|is this the reward service"):
        pool.score("a", "a", "number")


def test_a_service_that_can_not_grade_is_found_at_the_start(script: Any) -> None:
    with pytest.raises(PoolError, match="lacks rdkit to grade 'smiles'"):
        RemotePool(script.url, preload=["smiles"])
    with pytest.raises(ValueError, match="must begin with http"):
        RemotePool("rewards:8000")
