"""Last step of the set-up: makes torchvision importable beside a CPU build of torch, and proves that it is.

PyPI's torchvision is built for CUDA. Beside a CPU torch its compiled operators can't load; torchvision guards for
that, except where it registers two operators (`nms`, `qnms`) that then have no schema, so `import torchvision`
fails and takes transformers' vision models with it. Declaring the two schemas is enough: nothing here calls the
operators, and image transforms are plain torch. This script writes a module and a `.pth` file into the site-
packages of the interpreter that runs it, so that every process of the environment, spawned children included,
declares them before torchvision runs.

It writes nothing where torchvision already imports (a CUDA torch, or a matching CPU torchvision) or is not installed,
and removes what it wrote earlier. Run it again after any change of torch or torchvision:

    .venv/bin/python requirements/setup_env.py
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

MODULE = "_torchvision_cpu_schemas"

HOOK = '''"""Written by requirements/setup_env.py, which says why. Costs nothing until torchvision is imported."""

import sys
from importlib.machinery import PathFinder

_library = None  # the schemas live as long as this object


def _declare_schemas():
    global _library
    import torch

    if _library is not None or torch.version.cuda is not None:
        return
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


class _TorchvisionFinder:
    """Lets the usual finder find torchvision and runs `_declare_schemas` before its code."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                _declare_schemas()
                execute(module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _TorchvisionFinder)
'''

CHECK = """
import torchvision
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter of this environment."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


def hook_files() -> tuple[Path, Path]:
    """The module and the `.pth` file that makes every interpreter of this environment import it."""
    site_packages = Path(sysconfig.get_paths()["purelib"])
    return site_packages / f"{MODULE}.py", site_packages / f"{MODULE}.pth"


def needs_hook() -> bool:
    """Whether torch is a CPU build, torchvision is installed, and importing it fails."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        return False
    probe = "import torch; print(torch.version.cuda)\nimport torchvision"
    result = run_python(probe)
    return result.returncode != 0 and result.stdout.strip() == "None"


def main() -> int:
    if sys.prefix == sys.base_prefix:
        print("setup_env: this interpreter belongs to no virtual environment; run it with .venv/bin/python")
        return 2
    result = run_python("import torch")
    if result.returncode != 0:
        print(
            f"setup_env: torch can't be imported:\n{result.stderr.strip()}\n"
            "The lock is for a CPU build of torch and holds no CUDA libraries; where pip finds only CUDA builds, give "
            'it the index of PyTorch\'s CPU wheels: make install PIP_ARGS="--extra-index-url URL"'
        )
        return 1
    module, pth = hook_files()
    for path in (pth, module):
        path.unlink(missing_ok=True)
    if needs_hook():
        module.write_text(HOOK)
        pth.write_text(f"import {MODULE}\n")
        print(f"setup_env: CPU torch beside a CUDA-linked torchvision; declared its operator schemas in {module.name}")
    result = run_python(CHECK)
    if result.returncode != 0:
        print(f"setup_env: the environment can't load vision-language models:\n{result.stderr.strip()}")
        return 1
    print("setup_env: torchvision and transformers' vision-language models import")
    return 0


if __name__ == "__main__":
    sys.exit(main())
