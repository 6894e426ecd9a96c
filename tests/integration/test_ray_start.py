"""A run's own Ray, on a machine where another was started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytestmark = pytest.mark.timeout(300)

START = "import ray; from rl.nodes import connect; connect(None); print(ray.get_runtime_context().gcs_address)"


def test_what_ray_start_left_behind_is_not_joined() -> None:
    """`ray start` leaves the address of its cluster in a file, also when the cluster is gone."""
    with TemporaryDirectory(dir="/tmp") as folder:  # a path of pytest's is too long for Ray's sockets
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        environment = os.environ | {"RAY_TMPDIR": folder, "RAY_ADDRESS": ""}
        done = subprocess.run(
            [sys.executable, "-c", START], env=environment, capture_output=True, text=True, timeout=240
        )
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip().endswith(":9")
