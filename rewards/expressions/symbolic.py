"""Equality of what numbers alone can't decide (matrices, sets, relations, `±`, sums), by math-verify and SymPy.

math-verify's own time limits are signal alarms, which fail off the main thread; they are switched off, and the deadline
is the pool's. Its removal of units is switched off as well: it takes `2t` for `2`. Text over the `limits` stays out.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from rewards.expressions import comparison, limits
from rewards.expressions.latex import Expression


class ComparisonError(ArithmeticError):
    """SymPy failed on two trees that were read: neither equal nor unequal."""


def equivalent(gold: Expression, prediction: Expression, tolerance: float = 0.0) -> tuple[bool | None, str]:
    """(whether an answer equals the gold answer, why not). The verdict is None where the gold answer can't be read.

    Raises:
        ComparisonError: see there.
    """
    wanted, why = _tree(gold.body)
    if wanted is None:
        return None, f"the accepted answer can't be evaluated: {why}"
    got, why = _tree(prediction.body)
    if got is None:
        return False, f"not evaluated: {why}"
    try:
        return comparison.same(wanted, got, tolerance), ""
    except Exception as exc:  # SymPy on trees of kinds it does not expect; the grader has failed, not the answer
        raise ComparisonError(f"SymPy can't compare them: {type(exc).__name__}: {exc!s:.200}") from exc


@lru_cache(maxsize=512)
def _tree(body: str) -> tuple[Any, str]:
    """The SymPy tree of a LaTeX text, or None and the reason. Kept for the next prediction against the same gold."""
    reason = limits.too_complex(body)
    if reason is not None:
        return None, reason
    try:
        tree = _parse(body)
        if limits.tree_too_large(tree) is None and not hasattr(tree, "shape") and comparison.is_scalar(tree):
            tree = comparison.rebuilt(tree)
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


def _quiet() -> None:
    # Each call without a time limit logs a warning, and each unparsable answer a traceback.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)


def warm_up() -> None:
    """Load SymPy and the LaTeX grammar, and fill the caches that the first expressions would pay for."""
    pairs = (
        (r"|x-1|+\frac{\sqrt{2}}{2}", r"|1-x|+\frac{1}{\sqrt{2}}"),
        (r"[0,1) \cup (2, \infty)", r"(2, \infty) \cup [0,1)"),
        (
            r"\begin{pmatrix} 1 & -2 \\ x & \frac{1}{2} \end{pmatrix}",
            r"\begin{bmatrix} 1 & -2 \\ x & 0.5 \end{bmatrix}",
        ),
        (r"2x + 4y - 3 = 0", r"y = -\frac{1}{2}x + \frac{3}{4}"),
        (r"-2 \le x < 7", r"x \in [-2, 7)"),
        (r"x = 1 \pm \sqrt{5}", r"\{1 + \sqrt{5}, 1 - \sqrt{5}\}"),
        (r"x_{1} = 5, x_{2} = \sin 2x", r"(5, \log(x))"),
    )
    for gold, other in pairs:
        equivalent(Expression(gold), Expression(other))
