"""Equality of what numbers alone can't decide (matrices, sets, relations, `±`, sums), by math-verify and SymPy.

math-verify's own time limits are signal alarms, which fail off the main thread; they are switched off, and the deadline
is the pool's. Its removal of units is switched off as well: it takes `2t` for `2`. Text reaches it only within `limits`.
"""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache
from typing import Any

from rewards.expressions import limits
from rewards.expressions.latex import Expression

MAX_SIMPLIFY_NODES = 60
_DIGITS = 20
_POINTS = ((0.7310585786300049, 1.618033988749895), (2.23606797749979, 0.5671432904097838), (-1.2020569031595942, -0.9159655941772190))


def equivalent(gold: Expression, prediction: Expression, tolerance: float = 0.0) -> tuple[bool | None, str]:
    """(whether an answer equals the gold answer, why not). The verdict is None where the gold answer can't be read."""
    wanted, why = _tree(gold.body)
    if wanted is None:
        return None, f"the accepted answer can't be evaluated: {why}"
    got, why = _tree(prediction.body)
    if got is None:
        return False, f"not evaluated: {why}"
    return _same(wanted, got, tolerance), ""


@lru_cache(maxsize=2048)
def _tree(body: str) -> tuple[Any, str]:
    """The SymPy tree of a LaTeX text, or None and the reason. Kept for the next prediction against the same gold."""
    reason = limits.too_complex(body)
    if reason is not None:
        return None, reason
    try:
        tree = _parse(body)
    except Exception as exc:  # the grammar and its listeners raise what they like; a text that isn't LaTeX is no error
        return None, f"not read as LaTeX ({type(exc).__name__})"
    reason = limits.tree_too_large(tree)
    return (tree, "") if reason is None else (None, reason)


def _parse(body: str) -> Any:
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex
    from math_verify.grader import should_treat_as_complex
    from math_verify.parser import get_last_eq

    _quiet()
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    text = normalize_latex(body, config=config)

    def read(latex: str) -> Any:
        real = not should_treat_as_complex(latex)
        return latex2sympy(latex, is_real=real, convert_degrees=False, normalization_config=None)

    try:
        return read(text)
    except Exception:  # a chain such as a = b = c is not in the grammar, its last part is
        last = get_last_eq(text)
        if last == text:
            raise
        return read(last)


def _same(gold: Any, got: Any, tolerance: float) -> bool:
    from math_verify import verify

    digits = 6 if tolerance <= 0 else max(1, min(6, round(-math.log10(tolerance))))
    decided = _by_numbers(gold, got, tolerance)
    if decided is not None:
        return decided
    nodes = sum(1 for tree in (gold, got) for _ in limits._preorder(tree))
    if nodes > 2 * MAX_SIMPLIFY_NODES:
        return bool(gold == got)
    return bool(
        verify([gold], [got], float_rounding=digits, timeout_seconds=None, allow_set_relation_comp=True)
    )


def _by_numbers(gold: Any, got: Any, tolerance: float) -> bool | None:
    """Unequal where two scalar trees, or two equations, differ at a point; None where that is open.

    Keeps wrong answers from `simplify` and `solve`, whose time has no bound.
    """
    import sympy

    plain = (sympy.Expr,)
    if not (isinstance(gold, plain) and isinstance(got, plain)) or any(
        tree.has(sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative, sympy.MatrixExpr)
        or tree.atoms(sympy.core.function.AppliedUndef)
        for tree in (gold, got)
    ):
        return None
    symbols = sorted(gold.free_symbols | got.free_symbols, key=str)
    for point in _POINTS:
        values = {
            symbol: sympy.Float(point[0] + 0.3 * index * point[1], _DIGITS) for index, symbol in enumerate(symbols)
        }
        try:
            pair = [complex(tree.subs(values).evalf(_DIGITS)) for tree in (gold, got)]
        except Exception:  # evalf raises what it likes on what has no value here
            return None
        if not all(math.isfinite(value.real) and math.isfinite(value.imag) for value in pair):
            return None
        if any(abs(value.imag) > 1e-12 for value in pair) and symbols:
            return None
        gap, size = abs(pair[0] - pair[1]), max(abs(value) for value in pair)
        if gap > max(1e-5, 2 * tolerance) * size and size > 1e-9:
            return False
        if not symbols:
            break
    return None


def _quiet() -> None:
    # Each call without a time limit logs a warning, and each unparsable answer a traceback.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)


def warm_up() -> None:
    """Load SymPy and the LaTeX grammar, and fill the caches that the first expressions would pay for."""
    pairs = (
        (r"|x-1|+\frac{\sqrt{2}}{2}", r"|1-x|+\frac{1}{\sqrt{2}}"),
        (r"[0,1) \cup (2, \infty)", r"(2, \infty) \cup [0,1)"),
        (r"\begin{pmatrix} 1 & -2 \\ x & \frac{1}{2} \end{pmatrix}", r"\begin{bmatrix} 1 & -2 \\ x & 0.5 \end{bmatrix}"),
        (r"2x + 4y - 3 = 0", r"y = -\frac{1}{2}x + \frac{3}{4}"),
        (r"-2 \le x < 7", r"x \in [-2, 7)"),
        (r"x = 1 \pm \sqrt{5}", r"\{1 + \sqrt{5}, 1 - \sqrt{5}\}"),
        (r"x_{1} = 5, x_{2} = \sin 2x", r"(5, \log(x))"),
    )
    for gold, other in pairs:
        equivalent(Expression(gold), Expression(other))
