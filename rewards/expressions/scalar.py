r"""A parser for scalar expressions whose reading is beyond doubt: `\frac{x^2-1}{2}`, `2\sqrt{3}`, `n(n+1)/2`.

What is open to two readings (`1/2x`, `f(x)`, `\sin xy`, a bare `\log`) raises `Unsupported` and goes to the LaTeX
grammar. Nothing is evaluated here. Time is linear in the text; nesting is capped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

MAX_TOKENS = 1_000
MAX_NESTING = 40
MAX_DIVISIONS = 8

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|(\\[A-Za-z]+)|([A-Za-z])|([-+*/^_(){}\[\]!'|]))")
_FUNCTION_NAMES = "sin cos tan cot sec csc sinh cosh tanh coth ln exp"
_FUNCTIONS = {f"\\{name}": name for name in _FUNCTION_NAMES.split()}
_FUNCTIONS |= {
    "\\arcsin": "asin",
    "\\arccos": "acos",
    "\\arctan": "atan",
    "\\asin": "asin",
    "\\acos": "acos",
    "\\atan": "atan",
}
_GREEK = """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"""
_SYMBOLS = frozenset(f"\\{name}" for name in _GREEK.split())
_TIMES = ("*", "\\cdot", "\\times")
_FRACTIONS = ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac")
_FUNCTION_LETTERS = frozenset("fghFGHPQTWp")
_CLOSING = {"(": ")", "{": "}", "[": "]"}


class Unsupported(ValueError):
    """The text is no scalar expression, or can be read in two ways."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: `op` is num, sym, const, add, mul, div, pow, neg, root, fact, binom, log or a function's name."""

    op: str
    args: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Scalar:
    """A parsed expression. `exact` is False where it holds a decimal point, so that six digits of it count.

    With `principal`, powers of what is negative have their complex principal values where the variables are positive;
    else, and where they are not, they have none.
    """

    root: Node
    symbols: frozenset[str]
    exact: bool
    imaginary: bool
    principal: bool = False


def parse(text: str) -> Scalar:
    """Read an expression.

    Raises:
        Unsupported: see there.
    """
    parser = _Parser(text)
    root = parser.sum()
    if parser.peek() != "":
        parser.refuse()
    return Scalar(root, frozenset(parser.symbols), parser.exact, parser.imaginary)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = self.depth = 0
        self.symbols: set[str] = set()
        self.exact = True
        self.imaginary = False

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.take() != token:
            self.refuse()

    def refuse(self) -> NoReturn:
        raise Unsupported(f"not read at token {self.at} ({self.peek()!r})")

    def sum(self) -> Node:
        terms = [self.product()]
        while self.peek() in ("+", "-"):
            minus = self.take() == "-"
            term = self.product()
            terms.append(Node("neg", (term,)) if minus else term)
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        minus = self.sign()
        factors = [self.power()]
        divisions = 0
        while True:
            token = self.peek()
            if token in _TIMES:
                self.take()
                factors.append(self.signed())
            elif token in ("/", "\\div"):
                self.take()
                divisions += 1
                factors = [Node("div", (_product(factors), self.signed()))]
                if divisions > MAX_DIVISIONS or self.starts_factor(self.peek()):
                    self.refuse()  # 1/2x
            elif self.starts_factor(token):
                if factors[-1].op == "num" and (token[0].isdigit() or token[0] == "."):
                    self.refuse()  # two numbers side by side
                mixed = factors[-1].op == "num" and token in _FRACTIONS
                if mixed and len(factors) > 1:
                    self.refuse()  # 2 * 3\frac{1}{2}
                factor = self.power()
                factors = [self.mixed(factors[0], factor)] if mixed else [*factors, factor]
            else:
                value = _product(factors)
                return Node("neg", (value,)) if minus else value

    def mixed(self, whole: Node, fraction: Node) -> Node:
        r"""`2\frac{1}{2}` is two and a half; `2\frac{x}{3}` a product."""
        numbers = fraction.op == "div" and all(part.op == "num" for part in fraction.args)
        if not numbers:
            return Node("mul", (whole, fraction))
        if whole.value is None or whole.value.denominator != 1:
            self.refuse()
        return Node("add", (whole, fraction))

    def signed(self) -> Node:
        minus = self.sign()
        value = self.power()
        return Node("neg", (value,)) if minus else value

    def sign(self) -> bool:
        minus = False
        while self.peek() in ("+", "-"):
            minus ^= self.take() == "-"
        return minus

    def starts_factor(self, token: str) -> bool:
        return bool(token) and (
            token[0].isalnum()
            or token[0] == "."
            or token in "({"
            or token in _FUNCTIONS
            or token in _SYMBOLS
            or token in _FRACTIONS
            or token in ("\\pi", "\\sqrt", "\\binom", "\\log")
        )

    def power(self) -> Node:
        base = self.atom()
        if self.peek() == "!":
            self.take()
            base = Node("fact", (base,))
        if self.peek() != "^":
            return base if self.peek() != "!" else self.refuse()
        self.take()
        exponent = self.script()
        if self.peek() in ("^", "!"):
            self.refuse()  # x^2^3, x^2!
        return Node("pow", (base, exponent))

    def script(self, minus: bool = False) -> Node:
        """What `^` raises to: a group, or one token; of bare digits only a single one is sure."""
        token = self.peek()
        if token in ("{", "("):
            return self.group()
        if token == "-" and not minus:
            self.take()
            return Node("neg", (self.script(minus=True),))
        if token[:1].isdigit() or token in _SYMBOLS or token == "\\pi" or (len(token) == 1 and token.isalpha()):
            return self.atom()
        self.refuse()

    def group(self) -> Node:
        closing = _CLOSING[self.take()]
        inner = self.sum()
        self.expect(closing)
        return inner

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.refuse()
        value = self.single()
        self.depth -= 1
        return value

    def single(self) -> Node:
        token = self.peek()
        if token[:1].isdigit() or token[:1] == ".":
            self.take()
            self.exact = self.exact and "." not in token
            return Node("num", value=Fraction(token))
        if token in ("(", "{"):
            return self.group()
        if token in _FRACTIONS:
            self.take()
            return Node("div", (self.argument(), self.argument()))
        if token == "\\binom":
            self.take()
            return Node("binom", (self.argument(), self.argument()))
        if token == "\\sqrt":
            return self.root()
        if token == "\\log":
            return self.logarithm()
        if token in _FUNCTIONS:
            return self.function()
        if token == "\\pi":
            self.take()
            return Node("const", name="pi")
        if token in _SYMBOLS or (len(token) == 1 and token.isalpha()):
            return self.symbol()
        self.refuse()

    def argument(self) -> Node:
        r"""An argument of `\frac` or `\sqrt`: a group in braces, or one digit or letter."""
        token = self.peek()
        if token == "{":
            return self.group()
        if token[:1].isdigit() and len(token) > 1 and "." not in token:
            # \frac12 is one half: only the first digit is the argument.
            self.tokens[self.at] = token[1:]
            return Node("num", value=Fraction(token[0]))
        if token[:1].isdigit() or token == "\\pi" or (len(token) == 1 and token.isalpha()):
            return self.atom()
        self.refuse()

    def root(self) -> Node:
        self.take()
        degree = self.group() if self.peek() == "[" else Node("num", value=Fraction(2))
        return Node("root", (self.argument(), degree))

    def logarithm(self) -> Node:
        self.take()
        if self.peek() != "_":
            self.refuse()  # base 10 or e
        self.take()
        base = self.argument()
        return Node("log", (self.function_argument(), base))

    def function(self) -> Node:
        name = _FUNCTIONS[self.take()]
        exponent: Node | None = None
        if self.peek() == "^":
            self.take()
            exponent = self.script()
            if exponent.op == "neg":
                self.refuse()  # the inverse function, or the reciprocal
        value = Node(name, (self.function_argument(),))
        return value if exponent is None else Node("pow", (value, exponent))

    def function_argument(self) -> Node:
        if self.peek() in ("(", "{"):
            inner = self.group()
            if self.peek() in ("^", "!"):
                self.refuse()  # sin(x)^2
            return inner
        minus = self.peek() == "-"
        if minus:
            self.take()
        factors = [self.power()]
        while factors[-1].op == "num" and self.starts_factor(self.peek()) and self.peek() not in _FUNCTIONS:
            if self.peek()[0].isdigit() or self.peek() in _FRACTIONS:
                self.refuse()
            factors.append(self.power())
        following = self.peek()
        if following == "/" or (self.starts_factor(following) and following not in _FUNCTIONS):
            self.refuse()  # sin xy, sin x/2
        value = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
        return Node("neg", (value,)) if minus else value

    def symbol(self) -> Node:
        name = self.take()
        if self.peek() == "_":
            self.take()
            name += "_" + self.index()
        while self.peek() == "'":
            name += self.take()
        if self.peek() in ("(", "[") and (name[0] in _FUNCTION_LETTERS or name[0] == "\\" or len(name) > 1):
            self.refuse()  # f(x)
        if name == "e":
            return Node("const", name="e")
        if name == "i":
            self.imaginary = True
            return Node("const", name="i")
        self.symbols.add(name)
        return Node("sym", name=name)

    def index(self) -> str:
        """The text of an index: one token, or a flat group of letters and digits."""
        if self.peek() != "{":
            token = self.take()
            return token if token.isalnum() else self.refuse()
        self.take()
        parts: list[str] = []
        while self.peek() not in ("}", "") and len(parts) < 12:
            parts.append(self.take())
        self.expect("}")
        return "".join(parts)


def _product(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or len(tokens) >= MAX_TOKENS:
            raise Unsupported(f"not read at character {position}")
        tokens.append(match.group(match.lastindex or 0))
        position = match.end()
    if not tokens:
        raise Unsupported("empty")
    return tokens
