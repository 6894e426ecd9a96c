"""The client of the service: the same answers as a local pool, and patience with a service that is not there yet."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from rewards import RemotePool, Request, RewardPool, UnknownVerifier
from rewards.worker import PoolError
from tests.unit.rewards.serving import TOKEN, WAITS, Served, free_port, served, wait_for_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

VERIFIERS = {
    "verifiers": [
        {"name": "number", "origin": "built in", "missing": []},
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
    """Answers `/v1/score_batch` from a list of (status, headers, body), the last one for ever."""

    answers: list[tuple[int, dict[str, str], Any]]
    seen: list[int]

    def do_GET(self) -> None:
        self._send(200, {}, VERIFIERS)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(len(body["requests"]))
        status, headers, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status == 0:
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, headers, {"results": [GRADE] * len(body["requests"])} if answer is None else answer)

    def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


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
            RemotePool(service.url, token, deadline_s=60)


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
        with RemotePool(f"http://127.0.0.1:{port}", deadline_s=90) as pool:
            made.append(pool.score("<answer>4</answer>", "4", "number").value)

    thread = threading.Thread(target=work)
    thread.start()
    with served(port=port):
        thread.join()
    assert made == [1.0]


def test_a_service_that_stays_away_is_an_error_with_the_reason() -> None:
    with pytest.raises(PoolError, match=r"gave no answer in 0\.3 s; the last try: ConnectError"):
        RemotePool(f"http://127.0.0.1:{free_port()}", deadline_s=0.3)


def test_busy_draining_and_broken_connections_are_asked_again(script: Any) -> None:
    busy = {"error": {"code": "busy", "message": "full"}}
    script.answers = [(429, {"Retry-After": "0"}, busy), (503, {}, busy), (0, {}, None), (502, {}, {}), (200, {}, None)]
    with RemotePool(script.url, connections=1) as pool:
        assert pool.score("a", "a", "number").value == 1.0
    assert script.seen == [1] * 5


def test_it_comes_back_when_it_is_told(script: Any) -> None:
    script.answers = [(429, {"Retry-After": "1000"}, {"error": {"code": "busy", "message": "full for long"}})]
    with RemotePool(script.url, deadline_s=0.5) as pool, pytest.raises(PoolError, match="429: full for long"):
        pool.score("a", "a", "number")
    assert script.seen == [1]


def test_batches_fit_the_service(script: Any) -> None:
    with RemotePool(script.url, connections=1) as pool:
        results = pool.score_many([Request("a" * 4_000, "a", "number")] * 3 + [Request("a", "a", "number")] * 4)
        assert [result.value for result in results] == [1.0] * 7
        assert script.seen == [2, 2, 2, 1]  # two of 4,000 bytes fit 10,000, as do two completions a request
        too_long = pool.score("a" * 20_000, "a", "number")
        assert (too_long.value, too_long.status) == (None, "error")
        assert "over the service's 10000" in too_long.detail


def test_other_answers_are_errors(script: Any) -> None:
    script.answers = [(500, {}, "oops")]
    with RemotePool(script.url) as pool:
        with pytest.raises(PoolError, match="answered 500"):
            pool.score("a", "a", "number")
        with pytest.raises(PoolError, match="lacks rdkit to grade 'smiles'"):
            RemotePool(script.url, preload=["smiles"])
    with pytest.raises(ValueError, match="must begin with http"):
        RemotePool("rewards:8000")
