"""Which tensors make a model whole: a push without one of them would leave the old version's weights in its place.

vLLM's loaders say which of their own parameters something was loaded into, and one such parameter may be fused from
several tensors; so names are compared before any is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rl.errors import SyncError
from rl.models.policy import skeleton

_SHOWN = 5


def complete_sets(model: str | Path) -> tuple[frozenset[str], ...]:
    """The names of all tensors of a Hugging Face folder's model, tied copies left out, in one set or more.

    The first holds the names that transformers writes. Where the folder's files go by older ones, a learner that has
    loaded them writes those again: that is another set, and each is complete. Takes a second for a large model.

    Raises:
        ConfigError: as `rl.models.policy.load_policy`.
    """
    from transformers.core_model_loading import revert_weight_conversion

    bare = skeleton(model).model
    own = dict(bare.named_parameters())  # without second names
    tied = set(getattr(bare, "_tied_weights_keys", None) or {}) if bare.config.tie_word_embeddings else set()
    written = frozenset(revert_weight_conversion(bare, {k: v for k, v in own.items() if k not in tied}))
    in_files = _names_in(Path(model)) - tied
    return (written, in_files) if in_files else (written,)


def check_complete(names: Iterable[str], complete: Iterable[frozenset[str]]) -> None:
    """
    Raises:
        SyncError: the names hold none of the sets; says what is missing of the nearest.
    """
    given = frozenset(names)
    missing = min((sorted(whole - given) for whole in complete), key=len)
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise SyncError(
            f"the push leaves out {len(missing)} of the model's tensors: {', '.join(missing[:_SHOWN])}{more}; the "
            "engine would go on with the old ones beside the new; learner and engine must load the same model"
        )


def _names_in(folder: Path) -> frozenset[str]:
    """The names in the folder's safetensors files; none where it has other files."""
    from safetensors import safe_open

    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            found.update(tensors.keys())
    return frozenset(found)
