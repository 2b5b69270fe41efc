"""Shrunken Hugging Face models come back from what save_pretrained writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import ozgraph  # noqa: E402

torch.set_num_threads(1)

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("kind", "more", "include", "number"),
    [
        ("bert", {}, ["*.intermediate.dense.weight"], "intermediate_size"),
        ("mistral", {"num_key_value_heads": 2, "head_dim": 8}, ["*.up_proj.weight"], "intermediate_size"),
        ("mistral", {"num_key_value_heads": 2, "head_dim": 8}, ["*.v_proj.weight"], "num_key_value_heads"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*train mode")
def test_the_config_follows(kind: str, more: dict[str, Any], include: list[str], number: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **more)
    config.use_cache = False
    try:
        module = transformers.AutoModel.from_config(config).eval()
    except ImportError as error:
        pytest.skip(f"transformers cannot make it here: {error}")
    before = getattr(config, number)
    inputs = {"input_ids": torch.arange(8).reshape(1, 8) % 7 + 3}
    ozgraph.shrink_(module, (), inputs, target=ozgraph.Target(groups=0.02), uniform=True, round_to=1, include=include)
    assert 0 < getattr(module.config, number) < before
    module.save_pretrained(tmp_path)
    again = type(module).from_pretrained(tmp_path)
    found, wanted = again(**inputs).last_hidden_state, module(**inputs).last_hidden_state
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
