"""Equality of mathematical answers, for `rewards.verifiers.math_expressions`.

`statement` finds the expression in a final answer, `limits` keeps what can't be evaluated away, `latex` brings it into
one notation, `structure` decides what needs numbers only (by `scalar` and `evaluate`), `symbolic` asks math-verify.
"""
