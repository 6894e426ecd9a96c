"""Traffic like that of an RL run on verifiable answers, for timing verifiers: groups of samples of one prompt.

    requests = traffic(groups=100, samples=16, seed=0)   # (completion, gold, answer_type)

Four prompts of five have a plain number or a short expression as their answer, one has LaTeX. The samples of a prompt
share its gold answer; by the prompt's difficulty some are right, mostly written as the gold is and else in another
usual way, and the wrong ones repeat the few mistakes that the prompt invites. Every completion has reasoning of some
hundred words before its answer, which is tagged or boxed, and a few are cut off. The same arguments give the same list.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Request = tuple[str, str, str]
Answers = tuple[str, list[str], list[str]]
"""(gold, other ways to write it, wrong answers)"""

PLAIN_SHARE = 0.8
_DIFFICULTIES = (0.1, 0.3, 0.5, 0.7, 0.9)
_SPEECH = """first we note that the total is then given by adding both parts so this means each side has value of let us
check again because it must be larger than before which gives the same result therefore we find wait but hence"""
_WORDS = _SPEECH.split()


def traffic(groups: int = 100, samples: int = 16, seed: int = 0) -> list[Request]:
    """`groups * samples` requests in the order in which a loop would send them, group by group."""
    generator = random.Random(seed)
    return [request for _ in range(groups) for request in _group(generator, samples)]


def _group(generator: random.Random, samples: int) -> Iterator[Request]:
    plain = generator.random() < PLAIN_SHARE
    gold, others, wrong = generator.choice(_PLAIN if plain else _LATEX)(generator)
    difficulty = generator.choice(_DIFFICULTIES)
    for _ in range(samples):
        right = generator.random() < difficulty
        said = generator.choice(wrong) if not right else gold if generator.random() < 0.6 else generator.choice(others)
        yield _completion(generator, said), gold, "math-expressions"


def _completion(generator: random.Random, answer: str) -> str:
    words = generator.choices(_WORDS, k=generator.randint(60, 240))
    for _ in range(generator.randint(3, 12)):
        words[generator.randrange(len(words))] = generator.choice(
            (f"${generator.randint(1, 99)}x$", "= 12", "$y=3$", "7")
        )
    text = "<think>" + " ".join(words) + "</think>\n"
    form = generator.random()
    if form < 0.02:
        return text[: len(text) // 2]
    return text + (f"<answer>{answer}</answer>" if form < 0.7 else f"The answer is $\\boxed{{{answer}}}$.")


def _integer(generator: random.Random) -> Answers:
    n = generator.randint(2, 9999)
    return (
        str(n),
        [f"${n}$", f"{n:,}", f"{n}.0", f"x = {n}"],
        [str(n + 1), str(-n), str(2 * n), f"{n} or {n + 1}", "12"],
    )


def _decimal(generator: random.Random) -> Answers:
    n = generator.randint(101, 99999)
    text = f"{n / 100:.2f}"
    return text, [f"${text}$", f"{text}0"], [f"{n / 10:.1f}", f"{n / 100 + 0.1:.2f}", str(n)]


def _fraction(generator: random.Random) -> Answers:
    a, b = generator.randint(1, 9), generator.choice((7, 11, 13, 16))
    return f"{a}/{b}", [f"\\frac{{{a}}}{{{b}}}", f"${a}/{b}$", f"{a / b:.7f}"], [f"{b}/{a}", f"{a + 1}/{b}", "0.5"]


def _quantity(generator: random.Random) -> Answers:
    n = generator.randint(2, 500)
    return f"{n} cm", [f"{n}", f"{n}\\text{{ cm}}", f"${n}$ cm"], [f"{n} m", f"{n + 2} cm", f"{n // 2}"]


def _percent(generator: random.Random) -> Answers:
    n = generator.randint(1, 99)
    return f"{n}\\%", [f"{n}%", str(n), f"{n / 100}"], [f"{100 - n}\\%", f"{n + 1}%"]


def _short_expression(generator: random.Random) -> Answers:
    a, b = generator.randint(2, 9), generator.randint(1, 9)
    return f"{a}x+{b}", [f"{b}+{a}x", f"${a}x + {b}$", f"y = {a}x + {b}"], [f"{a}x-{b}", f"{a}x", f"{b}x+{a}"]


def _surd(generator: random.Random) -> Answers:
    a, b = generator.randint(2, 9), generator.choice((2, 3, 5, 7))
    right = [f"\\sqrt{{{a * a * b}}}", f"{a} \\sqrt {b}", f"{a}√{b}"]
    return f"{a}\\sqrt{{{b}}}", right, [f"{b}\\sqrt{{{a}}}", f"{a + 1}\\sqrt{{{b}}}", str(a * b)]


def _rational_function(generator: random.Random) -> Answers:
    a, b = generator.randint(1, 5), generator.randint(2, 9)
    right = [f"\\frac{{x}}{{{b}}}+\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{a}+x}}{{{b}}}", f"(x+{a})/{b}"]
    return f"\\frac{{x+{a}}}{{{b}}}", right, [f"\\frac{{x-{a}}}{{{b}}}", f"\\frac{{x+{a}}}{{{b + 1}}}", f"x+{a}"]


def _quadratic(generator: random.Random) -> Answers:
    a, b = generator.randint(1, 6), generator.randint(1, 6)
    gold = f"x^2+{a + b}x+{a * b}"
    right = [f"(x+{a})(x+{b})", f"x^{{2}} + {a + b}x + {a * b}"]
    return gold, right, [f"x^2-{a + b}x+{a * b}", f"(x+{a})^2", f"x^2+{a * b}"]


def _interval(generator: random.Random) -> Answers:
    a, b = generator.randint(-5, 0), generator.randint(1, 9)
    right = [f"\\left[{a}, {b}\\right)", f"[{a}, {b})", f"{a} \\le x < {b}"]
    return f"[{a},{b})", right, [f"[{a},{b}]", f"({a},{b})", f"[{a},{b + 1})"]


def _union(generator: random.Random) -> Answers:
    a, b = generator.randint(-5, 0), generator.randint(1, 9)
    gold = f"(-\\infty, {a}) \\cup ({b}, \\infty)"
    right = [f"(-∞,{a})∪({b},∞)", f"({b},\\infty)\\cup(-\\infty,{a})"]
    return gold, right, [f"({a}, {b})", f"(-\\infty, {a}] \\cup [{b}, \\infty)", f"(-\\infty, {a})"]


def _roots(generator: random.Random) -> Answers:
    a, b = generator.randint(-9, 0), generator.randint(1, 9)
    right = [f"{b}, {a}", f"x = {a} \\text{{ or }} x = {b}", f"\\{{{a}, {b}\\}}"]
    return f"{a}, {b}", right, [f"{a}", f"{a}, {b + 1}", f"{-a - 1}, {-b}"]


def _point(generator: random.Random) -> Answers:
    a, b = generator.randint(-9, 9), generator.randint(1, 9)
    right = [f"({a}, \\dfrac{{{b}}}{{2}})", f"\\left({a}, {b / 2}\\right)"]
    return f"({a},\\frac{{{b}}}{{2}})", right, [f"({a},{b})", f"(\\frac{{{b}}}{{2}},{a + 1})"]


def _matrix(generator: random.Random) -> Answers:
    a, b, c, d = (generator.randint(-4, 9) for _ in range(4))
    gold = f"\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}"
    right = [gold.replace("pmatrix", "bmatrix"), gold.replace(" ", "").replace("{pmatrix}", "{pmatrix} ", 1)]
    return gold, right, [gold.replace(f"{{pmatrix}} {a}", f"{{pmatrix}} {a + 1}", 1), f"{a * d - b * c}"]


def _trigonometric(generator: random.Random) -> Answers:
    k = generator.randint(2, 6)
    gold = f"{k}\\sin x\\cos x"
    return gold, [f"\\frac{{{k}}}{{2}}\\sin 2x", f"{k} \\cos x \\sin x"], [f"{k}\\sin 2x", f"{k}\\cos x", "\\sin x"]


def _angle(generator: random.Random) -> Answers:
    b = generator.choice((3, 4, 6, 12))
    return (
        f"\\frac{{\\pi}}{{{b}}}",
        [f"\\pi/{b}", f"π/{b}"],
        [f"\\frac{{\\pi}}{{{b + 1}}}", f"\\frac{{{b}}}{{\\pi}}", "3.14"],
    )


_PLAIN: list[Callable[[random.Random], Answers]] = [
    *[_integer] * 5,
    _decimal,
    _fraction,
    _quantity,
    _percent,
    _short_expression,
]
_LATEX: list[Callable[[random.Random], Answers]] = [
    *[_surd, _rational_function, _quadratic, _interval, _union, _roots],
    *[_point, _matrix, _trigonometric, _angle],
]
