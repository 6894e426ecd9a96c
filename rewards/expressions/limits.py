"""Caps on expressions, checked before anything is evaluated; all linear in the text or the number of nodes.

They are no time limit (that is the pool's): they keep away what is known to take exponential time or memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

MAX_CHARS = 1_000
MAX_DEPTH = 30
MAX_DIGITS = 200
MAX_POWER_DIGITS = 5_000
MAX_FACTORIAL = 1_000

GRAMMAR_CHARS = 400
GRAMMAR_DEPTH = 8
GRAMMAR_COMMANDS = 80
GRAMMAR_SCRIPTS = 3
GRAMMAR_SETS = 12
GRAMMAR_WORDS = 4
MAX_NODES = 300
MAX_TERMS = 2_000
MAX_NESTED_PRODUCTS = 10

_TOWER = re.compile(r"\d{1,30}(?:\s*[\^{}(]*\^[\s{(]*\d{1,30})+|\d{1,30}(?:[\s{(]*\*\*[\s{(]*\d{1,30})+")
_HUGE_FACTORIAL = re.compile(r"\d{4,}\s*!|!\s*[)}\]]*\s*!")
_HUGE_BINOMIAL = re.compile(r"\\d?t?binom\s*\{?\s*\d{5,}")
_LONG_WORD = re.compile(r"[A-Za-z]{41}")
_LONG_RUN = re.compile(r"[A-Za-z]{19}")
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}(?![A-Za-z])")
_MACRO_TEXT = re.compile(r"\\(?:text|mathrm|operatorname|begin|end)\s*\{[^{}]*\}")
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_PREFIX_CHAIN = re.compile(r"(?:(?:\\[A-Za-z]+|[-+|!'])[\s{]*){16}")
_SET_OPERATOR = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])")
_BIG_OPERATOR = re.compile(r"\\(?:sum|prod|int|iint|iiint|oint|lim|frac\{d\^?\d?)(?![A-Za-z])")


def too_large(text: str) -> str | None:
    """Why an expression must not be evaluated at all, or None."""
    if len(text) > MAX_CHARS:
        return f"{len(text)} characters, over {MAX_CHARS}"
    deepest = _depth(text)
    if deepest > MAX_DEPTH:
        return f"brackets nested {deepest} deep, over {MAX_DEPTH}"
    if _LONG_NUMBER.search(text):
        return f"a number of over {MAX_DIGITS} digits"
    if _LONG_WORD.search(text):
        return "a word of over 40 letters, which would be read as a product of variables"
    if _HUGE_FACTORIAL.search(text) or _HUGE_BINOMIAL.search(text):
        return "a factorial or binomial too large to evaluate"
    if any(_tower_digits(tower.group()) > MAX_POWER_DIGITS for tower in _TOWER.finditer(text)):
        return f"a power of over {MAX_POWER_DIGITS} digits"
    return None


def too_complex(text: str) -> str | None:
    """Why an expression must not reach the LaTeX grammar, whose time grows exponentially with nesting, or None."""
    if len(text) > GRAMMAR_CHARS:
        return f"{len(text)} characters, over the {GRAMMAR_CHARS} that are parsed"
    if _depth(text) > GRAMMAR_DEPTH:
        return f"brackets nested over {GRAMMAR_DEPTH} deep"
    if text.count("\\") > GRAMMAR_COMMANDS:
        return f"over {GRAMMAR_COMMANDS} commands"
    if _script_depth(text) > GRAMMAR_SCRIPTS:
        return f"exponents or indices nested over {GRAMMAR_SCRIPTS} deep"
    if _PREFIX_CHAIN.search(text):
        return "a chain of 16 prefixes"
    if _LONG_RUN.search(text):
        return "a run of 19 letters, which is neither a command nor a product that one writes"
    words = _WORD.findall(_MACRO_TEXT.sub(" ", text))
    if len(words) > GRAMMAR_WORDS:
        return f"{len(words)} words, over the {GRAMMAR_WORDS} that may be products of variables"
    if len(_SET_OPERATOR.findall(text)) > GRAMMAR_SETS:
        return f"over {GRAMMAR_SETS} unions, intersections or differences"
    if len(_BIG_OPERATOR.findall(text)) > 2:
        return "more than two sums, products, integrals or limits"
    return None


def tree_too_large(tree: Any) -> str | None:
    """Why a SymPy tree must not be evaluated or simplified, or None. The tree is read, not evaluated."""
    import sympy

    nodes = list(preorder(tree))
    if len(nodes) > MAX_NODES:
        return f"over {MAX_NODES} terms"
    for node in nodes:
        if isinstance(node, sympy.Pow) and _power_digits(node) > MAX_POWER_DIGITS:
            return f"a power of over {MAX_POWER_DIGITS} digits"
        if isinstance(node, (sympy.factorial, sympy.factorial2, sympy.binomial, sympy.gamma)) and any(
            _magnitude(argument) > math.log10(MAX_FACTORIAL) for argument in node.args
        ):
            return "a factorial or binomial too large to evaluate"
        if isinstance(node, (sympy.Product, sympy.Sum)) and any(
            _magnitude(bound) > 2 for limit in node.limits for bound in limit[1:] if bound.is_number and bound.is_finite
        ):
            return "a sum or product of over 100 terms"
    if _nested_products(tree) > MAX_NESTED_PRODUCTS:
        return f"products nested over {MAX_NESTED_PRODUCTS} deep"
    if _terms(tree) > MAX_TERMS:
        return f"over {MAX_TERMS} terms when multiplied out"
    return None


def _nested_products(node: Any) -> int:
    """How deep products are nested in products: SymPy evaluates each twice, so the time doubles with every level."""
    import sympy

    parts = node.flat() if hasattr(node, "flat") else getattr(node, "args", ())
    return max((_nested_products(part) for part in parts), default=0) + isinstance(node, sympy.Mul)


def _terms(node: Any) -> float:
    """Terms of a tree when it is multiplied out, which simplification may do."""
    import sympy

    parts = [_terms(part) for part in (node.flat() if hasattr(node, "flat") else getattr(node, "args", ()))]
    if isinstance(node, sympy.Mul):
        return math.prod(parts)
    if isinstance(node, sympy.Pow) and node.exp.is_Integer and parts[0] > 1:
        power = min(abs(int(node.exp)), 10_000)
        return float(math.comb(int(min(power + parts[0] - 1, 20_000)), power))
    return max(1.0, sum(parts)) if isinstance(node, sympy.Add) or hasattr(node, "flat") else max(1.0, *parts, 1.0)


def preorder(tree: Any) -> Iterator[Any]:
    """The nodes of a tree, root first, and no more than are counted."""
    stack, seen = [tree], 0
    while stack and seen <= MAX_NODES:
        node = stack.pop()
        seen += 1
        yield node
        parts = getattr(node, "args", ())
        stack.extend(node.flat() if hasattr(node, "flat") and hasattr(node, "shape") else parts)


def _power_digits(node: Any) -> float:
    """Decimal digits that a power of numbers would have; 0 where its base or exponent is no number."""
    if hasattr(node.base, "shape"):  # of a matrix: the entries grow like the power of a number
        return 10 * 10.0 ** min(_magnitude(node.exp), 6) if node.exp.is_number else 0.0
    if not node.base.is_number or not node.exp.is_number:
        return 0.0 if not node.exp.is_number else (math.inf if _magnitude(node.exp) > 3 else 0.0)
    size = 10.0 ** min(_magnitude(node.exp), 300)
    return size * max(abs(_magnitude(node.base)), 0.3)


def _magnitude(node: Any) -> float:
    """log10 of about the largest absolute value that a tree of numbers can take; 0 for what is no number."""
    import sympy

    if isinstance(node, sympy.Rational):
        if node == 0:
            return 0.0
        return _log10(abs(node.p)) - _log10(node.q)
    if isinstance(node, sympy.Float):
        return float(sympy.log(abs(node), 10)) if node else 0.0
    if isinstance(node, sympy.Pow):
        return min(10.0 ** min(_magnitude(node.exp), 300) * max(abs(_magnitude(node.base)), 0.3), 1e300)
    parts = [_magnitude(part) for part in node.args]
    if isinstance(node, sympy.Mul):
        return sum(parts)
    if isinstance(node, sympy.exp):
        return min(10.0 ** min(parts[0], 300), 1e300)
    if isinstance(node, sympy.factorial):
        return min(10.0 ** min(parts[0], 300) * max(parts[0], 1.0), 1e300)
    return max(parts, default=0.0) + (math.log10(len(parts)) if parts else 0.0)


def _log10(value: int) -> float:
    return value.bit_length() * 0.30103 if value > 10**15 else math.log10(value)


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    return deepest


def _script_depth(text: str) -> int:
    """How deep exponents and indices are nested: 2 for `x^{y^z}`."""
    stack: list[bool] = []
    deepest = 0
    pending = False
    for char in text:
        if char in "^_":
            pending = True
            deepest = max(deepest, 1 + sum(stack))
        elif char in "({[":
            stack.append(pending)
            pending = False
        elif char in ")}]":
            if stack:
                stack.pop()
            pending = False
        elif not char.isspace():
            pending = False
    return deepest


def _tower_digits(tower: str) -> float:
    """Decimal digits of a^b^c..., read from the right; infinite where even that does not fit a float."""
    parts = [float(part) for part in re.findall(r"\d+", tower)]
    value = parts[-1]
    digits = math.log10(value) if value > 1 else 0.0
    for base in reversed(parts[:-1]):
        digits = value * math.log10(base) if base > 1 else 0.0
        if digits > 300:
            return math.inf if base is not parts[0] else digits
        value = 10.0**digits
    return digits
