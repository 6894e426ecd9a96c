r"""Plain numbers as people write them: signs, thousands, decimals, fractions, percent, `a \times 10^k`, units.

Nothing is evaluated: a text that isn't one number is None. Sizes are capped before a digit is converted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.text import bare

MAX_CHARS = 120

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_SIGN = r"(?:[+-]\s*)?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})(?:"
    rf"(?:(?P<whole>\d+)\s*)?\\[dt]?frac\s*(?:\{{\s*(?P<fn>{_SIGN}{_DECIMAL})\s*\}}|(?P<fn1>\d))"
    rf"\s*(?:\{{\s*(?P<fd>{_SIGN}{_DECIMAL})\s*\}}|(?P<fd1>\d))"
    rf"|(?P<mixed>\d+)\s+(?P<mn>\d+)\s*/\s*(?P<md>\d+)"
    rf"|(?P<rn>{_DECIMAL})\s*/\s*(?P<rd>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL})"
    r"(?:[eE](?P<exp>[+-]?\d{1,3})|\s*(?:\\times|\\cdot|×|·|\*|x)\s*10\s*\^\s*"
    r"(?:\{\s*(?P<pow>[+-]?\s*\d{1,3})\s*\}|\(\s*(?P<powp>[+-]?\s*\d{1,3})\s*\)|(?P<pow1>[+-]?\d{1,3})))?"
    r")"
)
_LETTERS = r"[A-Za-zµμΩÅ°℃£€¥$]"
_UNIT = re.compile(rf"{_LETTERS}+(?:\^?\{{?-?\d\}}?|[²³])?(?:\s*[ */·-]\s*{_LETTERS}+(?:\^?\{{?-?\d\}}?|[²³])?){{0,4}}")
_NAME = re.compile(r"[A-Za-z]\w{0,15}\s*=\s*")
_NOT_UNITS = {"and", "or", "to", "not", "x", "y", "z", "n", "i", "e"}
_UNIT_NAMES = """
m cm mm km nm μm in ft yd mi s ms μs ns min h hr hrs g kg mg μg t lb oz N kN J kJ MJ cal kcal W kW MW V mV kV A mA Ω kΩ
F μF nF pF C T H Pa kPa MPa atm bar K °C °F °K ° Hz kHz MHz GHz mol mmol M L l mL ml eV keV MeV GeV rad sr deg $ € £ ¥
meter meters metre metres second seconds minute minutes hour hours day days week weeks month months year years degree
degrees dollar dollars cent cents euro euros unit units square cubic inch inches foot feet mile miles gram grams
kilogram kilograms liter liters litre litres newton newtons joule joules watt watts volt volts ampere amperes ohm ohms
people students times percent
"""
_KNOWN_UNITS = frozenset(_UNIT_NAMES.split())
_MAP = str.maketrans(
    {"−": "-", "–": "-", "－": "-", "＋": "+", "，": ",", "．": ".", "／": "/", "％": "%"}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)
_WORD_NAMES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
_WORDS = _WORD_NAMES.split()


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as written: `50 %` is value 50 with `percent`; `exact` is False where it has a decimal point."""

    value: Fraction
    percent: bool = False
    unit: str = ""
    exact: bool = True


def parse(answer: str, *, units: bool = True, words: bool = True) -> Quantity | None:
    """The one number that an answer is, else None.

    `units` allows `x = ` before and a unit or noun behind the number; `words` allows `three`.
    """
    if len(answer) > 4 * MAX_CHARS:
        return None
    text = _clean(answer)
    if len(text) > MAX_CHARS:
        return None
    if words and text.casefold() in _WORDS:
        return Quantity(Fraction(_WORDS.index(text.casefold())))
    if units and (name := _NAME.match(text)):
        text = text[name.end() :]
    if units:
        text = text.lstrip("$€£¥ ")
    match = _NUMBER.match(text)
    if match is None:
        return None
    tail = text[match.end() :].strip()
    percent = tail.startswith("%")
    tail = tail[1:].strip() if percent else tail
    if tail and (not units or not _is_unit(tail)):
        return None
    value = _value(match)
    return None if value is None else Quantity(value, percent, _unit_key(tail), "." not in match.group())


def equal(prediction: Quantity, gold: Quantity) -> bool:
    """Equal numbers, up to the sixth significant digit where one is a decimal; units must agree where both have one.

    A percentage equals the same percentage, and, against a bare number, its value or a hundredth of it.
    """
    if prediction.unit and gold.unit and prediction.unit != gold.unit:
        return False
    exact = prediction.exact and gold.exact
    if prediction.percent == gold.percent:
        return _close(prediction.value, gold.value, exact)
    percent, plain = (prediction.value, gold.value) if prediction.percent else (gold.value, prediction.value)
    return _close(percent, plain, exact) or _close(percent / 100, plain, False)


def is_known_unit(unit: str) -> bool:
    """True for a `Quantity.unit` made of units of measurement, as opposed to a noun or a variable."""
    parts = re.split(r"[/*·-]|(?<=\d)", re.sub(r"-?\d", lambda digit: digit.group() + "/", unit))
    return all(part.rstrip("0123456789-") in _KNOWN_UNITS for part in parts if part.rstrip("0123456789-"))


def _close(a: Fraction, b: Fraction, exact: bool) -> bool:
    if a == b:
        return True
    if exact:
        return False
    # 1/12 and 0.083333 are the same answer: six significant digits, or six decimals for numbers that are not tiny.
    gap = abs(a - b)
    return gap <= abs(b) / 10**6 or (gap <= Fraction(1, 2 * 10**6) and abs(b) >= Fraction(1, 100))


def _clean(answer: str) -> str:
    text = bare(answer).translate(_MAP)
    text = text.replace("{,}", ",").replace("\\%", "%").replace("\\$", "$").replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\[,;:! ]", " ", text)
    text = re.sub(r"\^\s?\{?\s?\\circ\s?\}?|\\degree", "°", text)
    text = text.replace("\\mu", "μ").replace("\\Omega", "Ω").replace("~", " ").strip()
    return text[:-1].rstrip() if text.endswith(".") and not text[:-1].endswith(".") else text


def _is_unit(tail: str) -> bool:
    if _UNIT.fullmatch(tail) is None:
        return False
    return not any(word.casefold() in _NOT_UNITS for word in re.split(r"[^A-Za-z]+", tail))


def _unit_key(tail: str) -> str:
    """A unit in one spelling: `m / s^2` and `m/s²` are `m/s2`, `N m` is `N*m`."""
    tight = re.sub(r"[\^{}]|\s*(?=[/*·-])|(?<=[/*·-])\s*", "", tail.strip())
    return re.sub(r"\s+", "*", tight).replace("²", "2").replace("³", "3").replace("µ", "μ").rstrip(".")


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    if (top := part["fn"] or part["fn1"]) is not None:
        value = _ratio(top, part["fd"] or part["fd1"])
        if value is not None and part["whole"] is not None:
            value += int(part["whole"])
    elif part["mixed"] is not None:
        value = _ratio(part["mn"], part["md"])
        value = None if value is None else value + int(part["mixed"])
    elif part["rn"] is not None:
        value = _ratio(part["rn"], part["rd"])
    else:
        power = part["exp"] or part["pow"] or part["powp"] or part["pow1"] or "0"
        value = _fraction(part["plain"]) * Fraction(10) ** int(power.replace(" ", ""))
    if value is None:
        return None
    return -value if part["sign"].startswith("-") else value


def _ratio(top: str, bottom: str) -> Fraction | None:
    denominator = _fraction(bottom)
    return None if denominator == 0 else _fraction(top) / denominator


def _fraction(digits: str) -> Fraction:
    return Fraction(re.sub(r"[,\s]", "", digits).rstrip(".") or "0")
