"""Real vLLM, Ray and FSDP2 on the CPU with a model of 0.2M parameters; everything slow to build is built once."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from rl.models.encoder import EncodedPrompt
from rl.rollout.engines import ENGINES, engine_environment
from rl.rollout.vllm_engine import VllmEngine
from tests.integration.support import (
    ENGINE,
    PROMPTS,
    SESSION_MARK,
    Paths,
    Teacher,
    marked_processes,
    shared_memory,
    with_first_weights,
)

# Before an engine is imported in this process, and for the processes that tests start.
for backend in ENGINES:
    os.environ.update(engine_environment(backend, threads=1, gpus=0))
os.environ[SESSION_MARK] = uuid.uuid4().hex
# The tests' clusters are their own: not one that the machine is part of, and with a token that nobody else has.
os.environ.pop("RAY_ADDRESS", None)
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # as `rl.cluster.connect` sets it

EXIT_SECONDS = 60
SERVER_START_S, SERVER_END_S = 1200, 60
"""A server that starts beside other work on two cores takes minutes."""
SFT_SECONDS = 900
"""Seconds on a quiet machine; the limit is for one that is not."""
SERVER_TEMPLATE = (
    "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<|vision_start|><|image_pad|>"
    "<|vision_end|>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
"""The prompts of these tests are plain text."""
SESSION_CPUS = 8
"""Logical CPUs of the tests' Ray: actors of one test may start while those of the last one end."""
SHARED_WITH_PYTEST = ("resource_tracker", "forkserver")
"""Helpers of Python's multiprocessing that end with the process that started them."""


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """At the end no process of the session runs, which frees their ports, and no shared memory is orphaned."""
    before = shared_memory()
    yield
    left = {pid: text for pid, text in marked_processes().items() if not any(s in text for s in SHARED_WITH_PYTEST)}
    # Actors that were told to end may still be at it.
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)], EXIT_SECONDS)
    still = {process.pid: left[process.pid] for process in alive if process.status() != psutil.STATUS_ZOMBIE}
    assert not still, f"processes left behind: {still}"
    orphaned = shared_memory() - before
    assert not orphaned, f"shared memory left behind: {orphaned}"


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Dataset, random model and tuned model."""
    from rl.config.data import SynthConfig
    from rl.config.model import ModelInitConfig
    from rl.data.synth import generate
    from rl.models.init import run as init_model

    root = tmp_path_factory.mktemp("built")
    counts = {"train": {"counting": 48, "arithmetic": 16}, "eval": {"counting": 6, "arithmetic": 4}}
    splits = {split: {"count": count} for split, count in counts.items()}
    data = generate(SynthConfig.model_validate({"out": str(root / "data"), "splits": splits}))
    small = {"hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 192, "vocab_size": 384}
    small["max_positions"] = 8192
    vision = {"hidden_size": 32, "depth": 2, "heads": 2, "intermediate_size": 96}
    where = {"out": str(root / "random"), "tokenizer_corpus": str(data["train"])}
    random_model = init_model(ModelInitConfig.model_validate(where | small | {"vision": vision}))
    built = Paths(str(data["train"]), str(data["eval"]), str(random_model), str(root / "tuned"))
    _fine_tune(built, root / "sft.yaml")
    return built


def _fine_tune(built: Paths, config: Path) -> None:
    """A few seconds of `rl sft`, in a process of its own: its process group must not meet vLLM's."""
    optimizer = {"name": "muon", "lr": 5e-3, "betas": [0.9, 0.98], "warmup_steps": 10}
    settings = {
        "command": "sft",
        "model": built.random,
        "out": built.tuned,
        "steps": 80,
        "batch_size": 16,
        "data": {"path": built.train, "prompts": PROMPTS.model_dump()},
        "learner": {"tokens_per_microbatch": 4096, "fsdp": {"wrap": "root"}, "optimizer": optimizer},
    }
    config.write_text(yaml.safe_dump(settings))
    subprocess.run([sys.executable, "-m", "rl", "sft", str(config)], check=True, timeout=SFT_SECONDS)


@pytest.fixture(scope="session")
def teacher(paths: Paths) -> Teacher:
    """The random model as the learner runs it."""
    return Teacher(paths.random)


@pytest.fixture(scope="session")
def prompts(paths: Paths, teacher: Teacher) -> list[EncodedPrompt]:
    """Six prompts with an image, then four of text."""
    from rl.data.formats import read_samples

    encoded = [teacher.encoder.encode(sample) for sample in read_samples(paths.eval)]
    assert [len(prompt.images) for prompt in encoded] == [1] * 6 + [0] * 4
    return encoded


@pytest.fixture(scope="session")
def shared_engine(paths: Paths) -> Iterator[VllmEngine]:
    engine = VllmEngine(paths.random, ENGINE)
    yield engine
    engine.close()


@pytest.fixture
async def engine(shared_engine: VllmEngine, teacher: Teacher) -> VllmEngine:
    """The session's engine on the random model's weights, whatever the test before pushed."""
    await shared_engine.resume()
    return await with_first_weights(shared_engine, teacher)


@pytest.fixture(scope="session")
def openai_server(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of vLLM's own OpenAI server with the tuned model, which it calls `tiny`."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    options = {
        "--model": paths.tuned,
        "--served-model-name": "tiny",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": ENGINE.dtype,
        "--max-model-len": "8192",
        "--max-num-seqs": "16",
        "--kv-cache-memory-bytes": str(64 << 20),
        "--max-num-batched-tokens": "8192",
        "--limit-mm-per-prompt": '{"image": 4, "video": 0}',
        "--chat-template": SERVER_TEMPLATE,
        # A random model would fill its replies with white space.
        "--structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += ["--no-enable-chunked-prefill", *(word for pair in options.items() for word in pair)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + SERVER_START_S
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(SERVER_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """The tests' own Ray."""
    import ray

    from rl.ray_start import start_ray

    start_ray(
        num_cpus=SESSION_CPUS,
        object_store_memory=256 << 20,
        include_dashboard=False,
        logging_level=logging.WARNING,
    )
    yield
    ray.shutdown()
