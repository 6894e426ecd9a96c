"""Arithmetic in words of one line, no picture: sums and differences of numbers from 0 to 49."""

from __future__ import annotations

import random

from rl.data.synth.draft import Draft, answered


def make(rng: random.Random, image_size: int) -> Draft:
    """`27+15=?` with the ones and the tens worked in turn; differences are never negative."""
    a, b = rng.randint(0, 49), rng.randint(0, 49)
    plus = rng.random() < 0.5
    if not plus and a < b:
        a, b = b, a
    total = a + b if plus else a - b
    return Draft(
        problem=f"{a}{'+' if plus else '-'}{b}=?",
        answers=(str(total),),
        key=f"{min(a, b)},{max(a, b)}",
        problem_type="stem",
        answer_type="math-expressions",
        prompt_type="think",
        solution=answered(str(total), thought=work_sum(a, b) if plus else work_difference(a, b)),
    )


def work_sum(a: int, b: int) -> str:
    """`27+15`: `7+5=12 20+10+10=40` (ones, then tens with the carry; always all three tens)."""
    ones = a % 10 + b % 10
    carry = ones // 10 * 10
    tens_a, tens_b = a // 10 * 10, b // 10 * 10
    return f"{a % 10}+{b % 10}={ones} {tens_a}+{tens_b}+{carry}={tens_a + tens_b + carry}"


def work_difference(a: int, b: int) -> str:
    """`42-15`: `12-5=7 40-10-10=20` (ones with what was borrowed, then tens less the loan)."""
    borrow = 10 if a % 10 < b % 10 else 0
    ones = a % 10 + borrow
    tens_a, tens_b = a // 10 * 10, b // 10 * 10
    return f"{ones}-{b % 10}={ones - b % 10} {tens_a}-{tens_b}-{borrow}={tens_a - tens_b - borrow}"
