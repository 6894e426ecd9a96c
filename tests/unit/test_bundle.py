"""Weights in one buffer and back, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.sync.bundle import pack, unpack


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "odd": torch.randn(3, 5, 7, generator=generator),
        "half": torch.randn(9, generator=generator).to(torch.bfloat16),
        "float16": torch.randn(2, 2, generator=generator).to(torch.float16),
        "bytes": torch.arange(13, dtype=torch.uint8),
        "ids": torch.tensor([[1, -(2**40)]]),
        "double": torch.tensor(1 / 3, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "last": torch.ones(1, dtype=torch.bool),
    }


def test_round_trip_keeps_every_bit():
    tensors = weights()
    result = unpack(pack(tensors, version=12))
    assert list(result) == list(tensors)
    for name, tensor in tensors.items():
        assert result[name].dtype == tensor.dtype and result[name].shape == tensor.shape
        assert torch.equal(result[name], tensor), name


def test_special_values_survive():
    values = torch.tensor([float("inf"), float("-inf"), -0.0, 1e-45])
    (result,) = unpack(pack({"x": values}, 0)).values()
    assert torch.equal(result.view(torch.int32), values.view(torch.int32))


def test_layout_by_hand():
    bundle = pack({"a": torch.zeros(17), "b": torch.zeros(1, dtype=torch.bfloat16), "c": torch.zeros(16)}, 3)
    assert bundle.version == 3 and bundle.names == ("a", "b", "c")
    assert bundle.dtypes == ("float32", "bfloat16", "float32")
    assert bundle.shapes == ((17,), (1,), (16,))
    assert bundle.offsets == (0, 128, 192)  # 68 bytes take two blocks of 64, 2 bytes one
    assert bundle.buffer.dtype == np.uint8 and bundle.buffer.shape == (256,)


def test_tensors_that_are_not_contiguous_or_need_gradients():
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    result = unpack(pack({"turned": base.T, "column": base[:, 1]}, 0))
    assert torch.equal(result["turned"], base.detach().T)
    assert result["column"].tolist() == [1.0, 5.0, 9.0]


def test_a_read_only_buffer_gives_tensors_of_their_own():
    bundle = pack({"a": torch.ones(4)}, 0)
    bundle.buffer.flags.writeable = False
    result = unpack(bundle)
    result["a"].zero_()
    assert unpack(bundle)["a"].tolist() == [1.0] * 4


@pytest.mark.parametrize("version", [0, 7])
def test_no_weights_at_all(version):
    assert unpack(pack({}, version)) == {}
