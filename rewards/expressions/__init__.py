"""Equality of mathematical answers, for `rewards.verifiers.math_expressions`.

`statement` finds the expression in a final answer, `limits` keeps what can't be evaluated away, `latex` brings it into
one notation, `structure` decides what needs numbers only (by `scalar` and `evaluate`), `intervals` unions. The rest
goes to `symbolic`: `grammar` makes SymPy trees of bounded size (`tree_limits`), `trees` gives `evaluate` the scalars
among them, and `comparison` takes relations and sets apart; what is left is math-verify's.
"""
