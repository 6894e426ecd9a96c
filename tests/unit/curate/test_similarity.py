"""Image-text similarity with a real CLIP, small and random: the model's own cosine, and how texts are cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rl.curate.similarity import Similarity
from rl.errors import DataError

from .test_clean import png

IMAGE = png((5, 5, 60, 30))
LENGTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    root = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz.,0123456789"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (root / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=LENGTH)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": LENGTH, "eos_token_id": 1, "bos_token_id": 0}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(root)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(root)
    return str(root)


def test_it_is_the_cosine_of_the_model(folder: str) -> None:
    import io

    import torch
    from PIL import Image
    from transformers import AutoProcessor, CLIPModel

    text = "a bar chart"
    processor, model = AutoProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    inputs = processor(text=[text], images=Image.open(io.BytesIO(IMAGE)), return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
        # CLIP gives cosines scaled by exp(logit_scale).
        expected = float(output.logits_per_image[0, 0] / model.logit_scale.exp())
    assert Similarity(folder)(IMAGE, [text, ""]) == [pytest.approx(expected, abs=1e-5), 0.0]


def test_long_texts_count_as_a_whole(folder: str) -> None:
    measure = Similarity(folder)
    # Letters are tokens, and two more mark the ends: "a cat." has 5 + 2, two such sentences 10 + 2 of 16, three 15 + 2.
    assert measure.pieces("a cat. a dog. a cow.") == ["a cat. a dog.", "a cow."]
    assert measure.pieces("one very long sentence without an end. a b.")[-1] == "a b."
    (whole,) = measure(IMAGE, ["a cat. a dog. a cow."])
    parts = [measure.direction(piece) for piece in ("a cat. a dog.", "a cow.")]
    mean = (parts[0] + parts[1]) / np.linalg.norm(parts[0] + parts[1])
    assert measure.direction("a cat. a dog. a cow.") == pytest.approx(mean, abs=1e-5)
    assert -1 <= whole <= 1
    assert measure(IMAGE, ["a cat. a dog. z z z z z."]) != [whole], "the end counts, too"


def test_broken_images(folder: str) -> None:
    with pytest.raises(DataError, match="can't be decoded"):
        Similarity(folder)(b"no image", ["a"])


def test_captions_that_are_less_like_their_image_go(folder: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from rl.curate.recaption import run
    from tests.unit.rewards.judge_server import serve

    from .test_recaption import answer, figures, settings

    figures(tmp_path / "figures.parquet")
    only = {"router": None, "routes": [{"model": "writer"}], "quality": None, "reader": None}
    with serve(answer) as server:
        run(settings(server, tmp_path, **only, similarity={"model": folder}))
        first = pq.read_table(tmp_path / "out" / "captions.parquet").to_pylist()
        assert all(-1 <= row["similarity"] <= 1 and row["similarity_before"] is not None for row in first)
        middle = sorted(row["similarity"] for row in first)[len(first) // 2]
        run(settings(server, tmp_path, **only, similarity={"model": folder, "minimum": middle}))
    second = pq.read_table(tmp_path / "out" / "captions.parquet").to_pylist()
    assert {row["id"] for row in second} == {row["id"] for row in first if row["similarity"] >= middle}
