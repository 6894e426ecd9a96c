"""What a request may hold, and what an SGLang server is told of an engine's settings."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.config.rollout import EngineConfig
from rl.errors import EngineError
from rl.rollout.inside_sglang import rl_weights
from rl.rollout.limits import ModelLimits
from rl.rollout.sglang_options import CPU_PLATFORM, cache_tokens, server_arguments
from rl.rollout.sglang_push import StagedWeights
from rl.sync.bundle import pack

LIMITS = ModelLimits(vocab_size=10, image_token=7, unsampled=(7,), stops=(2,), max_len=8, max_images=2)
IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("ids", "images", "said"),
    [
        ((), 0, "empty"),
        ((1, 10), 0, "token id 10 is outside the model's vocabulary of 10"),
        ((1, -1), 0, "token id -1"),
        ((1,) * 8, 0, "has 8 tokens and the context length is 8"),
        ((7, 7, 7), 3, "At most 2 image"),
        ((1, 7), 0, r"0 image\(s\) and 1 placeholder"),
        ((1,), 1, r"1 image\(s\) and 0 placeholder"),
        ((1, 7, 7), 1, r"1 image\(s\) and 2 placeholder"),
    ],
)
def test_prompts_that_are_refused(ids: tuple[int, ...], images: int, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        LIMITS.check_prompt(ids, (IMAGE,) * images)


def test_images_count_expanded() -> None:
    """A 2 x 2 image of 4 tokens in place of its placeholder: 3 more than the ids have."""
    limits = replace(LIMITS, image_tokens=lambda height, width: height * width)
    assert limits.length((1, 7, 1), (IMAGE,)) == 6
    limits.check_prompt((1, 7, 1, 1), (IMAGE,))
    with pytest.raises(EngineError, match="has 8 tokens"):
        limits.check_prompt((1, 7, 1, 1, 1), (IMAGE,))


def test_prompts_that_fit() -> None:
    LIMITS.check_prompt((1,) * 7, ())
    LIMITS.check_prompt((7, 1, 7), (IMAGE, IMAGE))
    with pytest.raises(EngineError, match="context length"):
        LIMITS.check_prompt((1,) * 7, (), room=2)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The config of a text model: 3 layers, 2 key-value heads of 16, 32 positions."""
    from transformers import LlamaConfig

    sizes = dict(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, hidden_size=64, vocab_size=50)
    LlamaConfig(**sizes, max_position_embeddings=32, eos_token_id=[3, 4]).save_pretrained(tmp_path)
    return str(tmp_path)


def test_limits_of_a_model(model: str) -> None:
    limits = ModelLimits.of(model, EngineConfig(max_model_len=16, images_per_prompt=3))
    assert limits == ModelLimits(50, None, (), (3, 4), 16, 3)


def test_the_size_of_a_cache(model: str) -> None:
    """A token's keys and values: 2 x 3 layers x 2 heads x 16 x 4 bytes = 768; of 16 MiB that is 21845.3."""
    sizes = {"max_model_len": 32, "kv_cache_mb": 16}
    assert cache_tokens(model, EngineConfig(dtype="float32", **sizes)) == 21845
    assert cache_tokens(model, EngineConfig(dtype="bfloat16", **sizes)) == 43690
    with pytest.raises(EngineError, match=r"kv_cache_mb 16 holds .* 21845 tokens, fewer than one sequence"):
        cache_tokens(model, EngineConfig(dtype="float32", kv_cache_mb=16, max_model_len=30_000))


def test_arguments_of_a_server(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SGLANG_PLATFORM", raising=False)
    config = EngineConfig(backend="sglang", max_num_seqs=9, tensor_parallel_size=2, gpu_memory_utilization=0.5)
    words = server_arguments(model, config, 4)
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    assert pairs["--max-running-requests"] == "9" and pairs["--tp-size"] == "2" and pairs["--weight-version"] == "4"
    assert pairs["--mem-fraction-static"] == "0.5" and "--device" not in words
    assert "--enable-deterministic-inference" not in words  # which costs speed on GPUs
    steady = server_arguments(model, config.model_copy(update={"deterministic": True}), 0)
    assert {"--enable-deterministic-inference", "--disable-radix-cache"} <= {*steady}
    monkeypatch.setenv("SGLANG_PLATFORM", CPU_PLATFORM)
    on_cpu = server_arguments(model, EngineConfig(backend="sglang", deterministic=True, kv_cache_mb=32), 0)
    assert on_cpu[on_cpu.index("--max-running-requests") + 1] == "1"
    assert {"--device", "--max-total-tokens", "--enable-deterministic-inference"} <= {*on_cpu}


def test_settings_of_another_backend_are_refused() -> None:
    with pytest.raises(ValueError, match="sglang is set and backend is 'vllm'"):
        EngineConfig(sglang={"start_s": 5})
    with pytest.raises(ValueError, match="transformers backend runs on one device"):
        EngineConfig(backend="transformers", tensor_parallel_size=2)


READER = """
import sys
sys.path.insert(0, sys.argv[2])
import rl_weights
tensors, _ = rl_weights._tensors(sys.argv[1])
print([(name, str(t.dtype), t.tolist()) for name, t in tensors])
"""


def test_staged_weights_are_read_by_another_process() -> None:
    """Twice, the second bundle smaller: the memory shrinks, and nothing of the first is left."""
    staged = StagedWeights()
    inside = str(Path(rl_weights.__file__).parent)
    for tensors, said in [
        (
            {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)},
            "[('a', 'torch.float32', [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), ('b', 'torch.bfloat16', [1.5, -2.0])]",
        ),
        ({"c": torch.tensor(7)}, "[('c', 'torch.int64', 7)]"),
    ]:
        staged.stage(pack(tensors, 1))
        read = subprocess.run([sys.executable, "-c", READER, staged.path, inside], capture_output=True, text=True)
        assert read.stdout.strip() == said, read.stderr
    staged.clear()
    assert Path(staged.path).stat().st_size == 0
    staged.close()
