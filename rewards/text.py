"""Small clean-ups of answers that several verifiers share; all linear in the length of the text."""

from __future__ import annotations

import re
import unicodedata

from rewards.extract import unbox

_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"), ("`", "`"))
_TEXT_MACRO = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|operatorname|mbox)\s{0,8}\{([^{}]*)\}")


def bare(answer: str) -> str:
    r"""An answer without the box, dollar signs, bold marks and `\text{}` around it: `$\boxed{\text{C}}$` gives `C`."""
    text = answer
    for _ in range(4):
        before = text
        text = unbox(text).strip()
        stopped = text.rstrip(".。 ")
        for left, right in _WRAPPERS:
            if stopped.endswith(right):
                text = stopped  # `**5**.`
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : -len(right)]
                if left not in inner:
                    text = inner.strip()
        text = _TEXT_MACRO.sub(r"\1", text)
        if text == before:
            break
    return text


def folded(text: str) -> str:
    """For comparing phrases: compatibility characters unified, case folded, white space and outer punctuation gone."""
    flat = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return flat.strip(" .,;:!?'\"“”‘’。，；：！？") or flat
