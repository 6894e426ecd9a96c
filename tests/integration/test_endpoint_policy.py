"""`rl curate profile` through vLLM's own OpenAI server, behind a proxy that fails half of the requests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from rl.data.formats import read_samples
from rl.eval.runner import attempt_seed
from tests.integration.support import ENGINE, PROMPTS, Paths
from tests.unit.rewards.judge_server import Call, Reply, serve

pytestmark = pytest.mark.timeout(900)

ATTEMPTS = 2
START_S = 400
"""A server that starts beside other work on two cores takes minutes."""
TEMPLATE = (
    "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<|vision_start|><|image_pad|>"
    "<|vision_end|>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
"""The prompts of these tests are plain text."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def server(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a vLLM server with the tuned model, which it calls `tiny`."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    options = {
        "--model": paths.tuned,
        "--served-model-name": "tiny",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": ENGINE.dtype,
        "--max-model-len": str(ENGINE.max_model_len),
        "--max-num-seqs": "16",
        "--kv-cache-memory-bytes": str(64 << 20),
        "--max-num-batched-tokens": "8192",
        "--limit-mm-per-prompt": '{"image": 1, "video": 0}',
        "--chat-template": TEMPLATE,
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += ["--no-enable-chunked-prefill", *(word for pair in options.items() for word in pair)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def relay(url: str, call: Call, number: int) -> Reply:
    """Every other request is refused; the others get the server's answer as it is."""
    if number % 2:
        return Reply(status=503, raw=b"overloaded")
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(call.body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return Reply(raw=response.read())
    except urllib.error.HTTPError as exc:
        return Reply(status=exc.code, raw=exc.read())


def test_a_flaky_endpoint_loses_no_attempt(paths: Paths, server: str, tmp_path: Path) -> None:
    out, file = tmp_path / "profiled", tmp_path / "profile.yaml"
    with serve(lambda call, number: relay(server, call, number)) as proxy:
        endpoint = {"url": proxy.url, "model": "tiny", "concurrency": 8, "retries": 2, "backoff_s": 0}
        settings = {
            "command": "curate-profile",
            "policies": {"remote": {"endpoint": endpoint}},
            "candidates": paths.train,
            "out": str(out),
            "attempts": ATTEMPTS,
            "prompts": PROMPTS.model_dump(),
            "rollout": {"sampling": {"max_tokens": 16}, "engine": ENGINE.model_dump()},
        }
        file.write_text(yaml.safe_dump(settings))
        said = []
        for _ in range(12):
            command = [sys.executable, "-m", "rl", "curate", "profile", str(file)]
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode == 0:
                break
            said.append(ran.stderr)
            assert not (out / "profile.manifest.json").exists(), "what looks complete is complete"
        assert ran.returncode == 0, ran.stderr
    assert all("attempts could not be made" in text and "HTTP 503" in text for text in said)
    assert all("Run the same command again" in text and "Traceback" not in text for text in said)
    samples = {sample.id: sample for sample in read_samples(paths.train)}
    rows = pq.read_table(out / "attempts").to_pylist()
    assert Counter((row["id"], row["attempt"]) for row in rows) == {(i, n): 1 for i in samples for n in range(ATTEMPTS)}
    for row in rows:
        assert row["seed"] == attempt_seed(0, row["id"]) + row["attempt"]
        assert row["status"] in ("ok", "no_answer") and 1 <= row["length"] <= 16
        assert row["reward"] == 0 or row["answer"] in samples[row["id"]].answers
    assert sum(row["reward"] for row in rows) > 0, "the tuned model is right at times, images included"
