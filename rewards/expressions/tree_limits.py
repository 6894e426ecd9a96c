"""Caps on SymPy trees, checked on every part before anything is built from it, so before SymPy works a number out.

Two things have no bound in SymPy: the size of numbers (`9^{9^9}`, factorials), and the time of `evalf`, which works out
every factor of a product twice and every term of a sum as often as it cancels, so that it doubles with each level of
sums and products in each other. A part's measures follow from its own parts' alone: the whole is linear in the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rewards.expressions.limits import MAX_FACTORIAL, MAX_POWER_DIGITS

MAX_NODES = 300
MAX_TERMS = 2_000
MAX_NESTED = 12
MAX_SUMMANDS = 100
MAX_SYMBOLIC_EXPONENT = 1_000
_MOST = 1e300
_LOG_E = math.log10(math.e)


class TooLarge(ValueError):
    """A tree that must not be evaluated or simplified; the text says why."""


@dataclass(frozen=True, slots=True)
class Size:
    """Measures of a tree."""

    nodes: int
    nested: int
    """Sums and products in each other, on the deepest path."""
    terms: float
    """Terms when it is multiplied out, which simplification may do."""
    digits: float
    """log10 of about the largest absolute value that it takes where every variable is 1."""
    degree: float
    """Its degree as a polynomial in its variables, or about that."""
    number: bool
    """Whether it holds no variables."""


def too_large(tree: Any) -> str | None:
    """Why a tree must not be evaluated or simplified, or None. It is read, not evaluated."""
    try:
        measure(tree, {})
    except TooLarge as reason:
        return str(reason)
    return None


def measure(tree: Any, known: dict[Any, Size]) -> Size:
    """The size of a tree; `known` holds the sizes of parts already measured and grows.

    Raises:
        TooLarge: one of the caps is passed, by the tree or a part of it.
    """
    keyed = not hasattr(tree, "flat")  # matrices can be changed, and have no hash
    if keyed and tree in known:
        return known[tree]
    parts = [measure(part, known) for part in children(tree)]
    nodes = 1 + sum(part.nodes for part in parts)
    if nodes > MAX_NODES:
        raise TooLarge(f"over {MAX_NODES} terms")
    nested = max((part.nested for part in parts), default=0) + _is_sum_or_product(tree)
    if nested > MAX_NESTED:
        raise TooLarge(f"sums and products nested over {MAX_NESTED} deep")
    _check_operation(tree, parts, known)
    terms = _terms(tree, parts)
    if terms > MAX_TERMS:
        raise TooLarge(f"over {MAX_TERMS} terms when multiplied out")
    number = all(part.number for part in parts) if parts else bool(getattr(tree, "is_number", False))
    size = Size(nodes, nested, terms, _digits(tree, parts), _degree(tree, parts, number), number)
    if keyed:
        known[tree] = size
    return size


def children(tree: Any) -> list[Any]:
    """The entries of a matrix, the arguments of any other node."""
    parts = tree.flat() if hasattr(tree, "flat") and hasattr(tree, "shape") else getattr(tree, "args", ())
    return list(parts)


def preorder(tree: Any) -> Iterator[Any]:
    """The nodes of a tree, root first, and no more than are counted."""
    stack, seen = [tree], 0
    while stack and seen <= MAX_NODES:
        node = stack.pop()
        seen += 1
        yield node
        stack.extend(children(node))


def _is_sum_or_product(node: Any) -> bool:
    import sympy

    return isinstance(node, (sympy.Add, sympy.Mul, sympy.MatAdd, sympy.MatMul))


def _check_operation(node: Any, parts: list[Size], known: dict[Any, Size]) -> None:
    import sympy

    if isinstance(node, (sympy.Pow, sympy.MatPow)):
        digits = _power_digits(node, *parts)
    else:
        exponential = isinstance(node, (sympy.exp, sympy.sinh, sympy.cosh)) and parts[0].number
        digits = _power(parts[0].digits, _LOG_E) if exponential else 0.0
    if digits > MAX_POWER_DIGITS:
        raise TooLarge(f"a power of over {MAX_POWER_DIGITS} digits")
    if isinstance(node, (sympy.factorial, sympy.factorial2, sympy.binomial, sympy.gamma)):
        if any(part.digits > math.log10(MAX_FACTORIAL) for part in parts):
            raise TooLarge("a factorial or binomial too large to evaluate")
    if isinstance(node, (sympy.Product, sympy.Sum)):
        bounds = [known[bound] for limits in node.limits for bound in limits[1:]]
        if any(bound.digits > math.log10(MAX_SUMMANDS) for bound in bounds):
            raise TooLarge(f"a sum or product of over {MAX_SUMMANDS} terms")


def _power_digits(node: Any, base: Size, exponent: Size) -> float:
    """Decimal digits of a power of numbers; 0 for one of variables, unless its exponent alone is too large."""
    if not exponent.number:
        return 0.0
    if hasattr(node.base, "shape"):  # of a matrix: the entries grow like the power of a number
        return 10 * 10.0 ** min(exponent.digits, 6)
    if not base.number:
        return math.inf if exponent.digits > math.log10(MAX_SYMBOLIC_EXPONENT) else 0.0
    return _power(exponent.digits, base.digits)


def _power(exponent: float, base: float) -> float:
    return min(10.0 ** min(exponent, 300) * max(abs(base), 0.3), _MOST)


def _terms(node: Any, parts: list[Size]) -> float:
    import sympy

    terms = [part.terms for part in parts]
    if isinstance(node, sympy.Mul):
        return math.prod(terms)
    if isinstance(node, sympy.Pow) and node.exp.is_Integer and terms[0] > 1:
        power = min(abs(int(node.exp)), 10_000)
        return float(math.comb(int(min(power + terms[0] - 1, 20_000)), power))
    return max(1.0, sum(terms)) if isinstance(node, sympy.Add) or hasattr(node, "flat") else max(1.0, *terms, 1.0)


def _degree(node: Any, parts: list[Size], number: bool) -> float:
    import sympy

    if number or not parts:
        return 0.0 if number else 1.0
    degrees = [part.degree for part in parts]
    if isinstance(node, (sympy.Pow, sympy.binomial)) and (parts[1].number or isinstance(node, sympy.binomial)):
        return max(1.0, degrees[0]) * max(1.0, 10.0 ** min(max(part.digits for part in parts), 300))
    return sum(degrees) if isinstance(node, sympy.Mul) else max(degrees)


def _digits(node: Any, parts: list[Size]) -> float:
    import sympy

    if isinstance(node, sympy.Rational):
        return 0.0 if node == 0 or not node.q else _log10(abs(node.p)) - _log10(node.q)
    if isinstance(node, sympy.Float):
        return _float_digits(node)
    if not parts:
        return 0.5 if getattr(node, "is_number", False) else 0.0  # pi, e
    digits = [part.digits for part in parts]
    if isinstance(node, sympy.Pow):
        return _power(digits[1], digits[0])
    if isinstance(node, sympy.Mul):
        return sum(digits)
    if isinstance(node, (sympy.exp, sympy.sinh, sympy.cosh)):
        return _power(digits[0], _LOG_E)
    if isinstance(node, (sympy.factorial, sympy.gamma)):
        return _power(digits[0], max(digits[0], 1.0))
    return max(digits) + math.log10(len(digits))


def _float_digits(number: Any) -> float:
    _, mantissa, exponent, _ = number._mpf_
    return 0.0 if not mantissa else _log10(int(mantissa)) + 0.30103 * exponent


def _log10(value: int) -> float:
    return value.bit_length() * 0.30103 if value > 10**15 else math.log10(value)
