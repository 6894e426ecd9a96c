"""The longest sequence that a model folder allows, and what the checks of the commands say of it."""

from __future__ import annotations

import json

import pytest

from rl.commands import find, load, problems
from rl.models.context import LONGER, context_limit, context_problems


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()

    def write(config: object) -> str:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return str(folder)

    return write


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 1024}, "max_position_embeddings": 77}, 1024),
        ({"llm_config": {"max_position_embeddings": 2048}}, 2048),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "mrope"}}, 512),
        ({"max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, None),
        ({"hidden_size": 8}, None),
        ({"max_position_embeddings": "many"}, None),
        ([], None),
        ("{", None),
    ],
)
def test_the_limit_is_the_language_models(model, config, limit):
    assert context_limit(model(config)) == limit


def test_a_folder_that_is_not_here_has_no_limit(tmp_path):
    assert context_limit(tmp_path / "none") is None and context_problems(None, 10**9) == []


def test_at_most_the_limit_fits(model, monkeypatch):
    folder = model({"max_position_embeddings": 1024})
    assert context_problems(folder, 1024) == []
    (said,) = context_problems(folder, 1025)
    assert "rollout.engine.max_model_len is 1025" in said and "at most 1024" in said
    monkeypatch.setenv(LONGER, "1")
    assert context_problems(folder, 1025) == []


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("eval", "model: {m}\ndata: d\nout: o"),
        ("train", "model: {m}\ndata: {{train: d}}\nout: o\nsteps: 1"),
        ("curate", "model: {m}\ncandidates: d\nout: o"),
        ("curate-profile", "policies: {{p: {{model: {m}}}}}\ncandidates: d\nout: o"),
    ],
)
def test_every_command_with_engines_says_it_before_they_start(model, tmp_path, command, given):
    path = tmp_path / "config.yaml"
    path.write_text(f"command: {command}\n" + given.format(m=model({"text_config": {"max_position_embeddings": 1024}})))
    found = problems(find(command), load(find(command), path))
    assert [text for text in found if "rollout.engine.max_model_len is 12288" in text and "at most 1024" in text]


def test_a_policys_own_rollout_is_what_counts(model, tmp_path):
    path = tmp_path / "config.yaml"
    own = "rollout: {engine: {max_model_len: 2000}, sampling: {max_tokens: 100}}"
    folder = model({"max_position_embeddings": 1024})
    path.write_text(f"policies: {{p: {{model: {folder}, {own}}}}}\ncandidates: d\nout: o\n")
    command = find("curate-profile")
    found = problems(command, load(command, path))
    assert [text for text in found if "policies.p.rollout.engine.max_model_len is 2000" in text]
