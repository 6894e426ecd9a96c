"""Files of weights can be read by whom the umask lets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rl.models.files import allow_as_others, save_weights


@pytest.fixture(params=[0o022, 0o027, 0o077])
def allowed(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_weights_are_written_whole_and_readable_as_other_files_are(tmp_path: Path, allowed: int) -> None:
    path, part = tmp_path / "model.safetensors", torch.arange(6.0).reshape(2, 3)
    save_weights({"a": part.T}, path)
    assert path.stat().st_mode & 0o777 == allowed
    assert torch.equal(load_file(path)["a"], part.T)
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_gets_the_permissions_of_its_neighbours(tmp_path: Path, allowed: int) -> None:
    path = tmp_path / "model.safetensors"
    path.touch(0o600)
    allow_as_others(path)
    assert path.stat().st_mode & 0o777 == allowed
