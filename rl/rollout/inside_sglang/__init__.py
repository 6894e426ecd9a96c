"""What runs inside SGLang's processes, under the interpreter of its environment.

`rl_serve` is started by path, and imports `rl_ping`, as SGLang does `rl_weights`, by name from the same folder. So none
may import the project, and their names are ones that nothing else has.
"""
