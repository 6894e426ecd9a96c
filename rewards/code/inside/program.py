"""Runs the program under test as `__main__`, for tests by stdin and stdout. Runs inside the sandbox."""

import builtins
import sys

# The site module, which is left out, would have made these.
builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
sys.argv = ["solution.py"]
with open("solution.py", encoding="utf-8") as _file:
    _source = _file.read()
exec(compile(_source, "solution.py", "exec"), globals())
