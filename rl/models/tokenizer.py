"""A small byte-level BPE tokenizer with the chat, vision and answer tags as single tokens.

Byte-level means that any text can be encoded; digits, punctuation and the atoms of SMILES stay single, so that numbers,
boxes and molecules are spelled the same way wherever they stand and can be put together from known parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
SINGLE = r"[0-9]|[^\sA-Za-z0-9]|Cl|Br|[A-Z](?![a-z]{2})|[A-Z](?=c[c\d(])|c(?=[cn\d(]|s\d)"
"""Never merged with a neighbour: digits, punctuation, Cl and Br, capitals that begin no word, aromatic c."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on `texts`; tags are ordinary tokens (decoding keeps them), chat and vision tokens are special."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SINGLE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, BOS, EOS, *VISION_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False
    )
    fast.add_special_tokens({"additional_special_tokens": [BOS, *VISION_TOKENS]})
    fast.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    for name, token in (("image_token", "<|image_pad|>"), ("video_token", "<|video_pad|>")):
        setattr(fast, name, token)
        fast.init_kwargs[name] = token
    fast.chat_template = CHAT_TEMPLATE
    return fast
