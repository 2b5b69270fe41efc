"""Networks of torchvision, timm and Hugging Face, untrained and made small: what people prune, in many families.

``ZOO[name]()`` gives a module and its example inputs. Where a library is not installed it raises
``unittest.SkipTest``, which pytest reports as skipped.
"""

# Libraries that need not be installed, and modules called, are untyped.
# mypy: ignore-errors

from __future__ import annotations

import unittest
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

Made = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""Module, positional and keyword inputs."""


def torchvision_library() -> Any:
    try:
        import torch

        # torchvision registers fake kernels for compiled operators that some builds lack; no network here uses them.
        absent = torch.library.Library("torchvision", "FRAGMENT")
        for schema in (
            "nms(Tensor dets, Tensor scores, float threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float threshold) -> Tensor",
        ):
            with suppress(RuntimeError):  # it is there
                absent.define(schema)
        import torchvision
    except ImportError as error:
        raise unittest.SkipTest(f"{error.name} is not installed") from error
    return torchvision


def _seeded(make: Callable[[], Any]) -> Any:
    import torch

    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        module = make().eval()
        # Zero-initialised scales and heads would make slots equal that are not.
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    finally:
        torch.random.set_rng_state(state)
    return module.requires_grad_(False)


def _images(count: int, side: int) -> Any:
    import torch

    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def _measured(module: Any, side: int, halves: bool = False) -> Any:
    """With batch norms that have seen images: untrained, what images differ by is lost in the rounding of the sums.

    With half of its inputs at zero a sum has half the variance: over dozens of layers in a row little is left but
    rounding. With ``halves`` norms expect that half.
    """
    import torch

    norms = [each for each in module.modules() if isinstance(each, torch.nn.modules.batchnorm._BatchNorm)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = None  # the mean over all batches
            norm.train()
        with torch.no_grad():
            module(_images(16, side))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_var *= 0.5 if halves else 1.0
    return module.eval()


def vision(name: str, side: int = 64, halves: bool = False, **options: Any) -> Made:
    """A network of torchvision and two images of ``side`` pixels."""
    library = torchvision_library()
    module = _seeded(partial(library.models.get_model, name, weights=None, **options))
    return _measured(module, side, halves), (_images(2, side),), {}


def _segmentation(name: str) -> Made:
    return vision(name, weights_backbone=None, num_classes=5)


def _timm(name: str, side: int = 64, **options: Any) -> Made:
    torchvision_library()
    try:
        import timm
    except ImportError as error:
        raise unittest.SkipTest(f"{error.name} is not installed") from error
    module = _seeded(partial(timm.create_model, name, pretrained=False, **options))
    return _measured(module, side), (_images(2, side),), {}


def _hugging_face(kind: str, head: str, inputs: str = "tokens", **options: Any) -> Made:
    import torch

    with suppress(unittest.SkipTest):  # transformers imports it where it is there
        torchvision_library()
    try:
        import transformers
    except ImportError as error:
        raise unittest.SkipTest(f"{error.name} is not installed") from error
    config = transformers.AutoConfig.for_model(kind, **options)
    config.use_cache = False
    module = _seeded(lambda: getattr(transformers, head).from_config(config))
    tokens = torch.arange(8).reshape(1, 8) % 7 + 3
    if inputs == "tokens":
        return module, (), {"input_ids": tokens, "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    if inputs == "both":
        return module, (), {"input_ids": tokens, "decoder_input_ids": tokens[:, :5]}
    if inputs == "sound":
        features = torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(1))
        return module, (), {"input_features": features, "decoder_input_ids": tokens[:, :5]}
    if inputs == "pair":
        return module, (), {"input_ids": tokens, "pixel_values": _images(1, 32)}
    return module, (), {"pixel_values": _images(1, 32)}


_TEXT = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 64,
}  # fmt: skip
_GROUPED = {**_TEXT, "num_key_value_heads": 2}
_IMAGE = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 40,
}  # fmt: skip

ZOO: dict[str, Callable[[], Made]] = {
    **{
        name: partial(vision, name)
        for name in (
            "resnet18", "resnext50_32x4d", "densenet121", "squeezenet1_1", "mobilenet_v2",
            "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_x_400mf",
            "regnet_y_400mf", "convnext_tiny", "swin_t", "swin_v2_t",
        )
    },
    "efficientnet_b0": partial(vision, "efficientnet_b0", halves=True),
    "googlenet": partial(vision, "googlenet", aux_logits=False, init_weights=False),
    "inception_v3": partial(vision, "inception_v3", 80, aux_logits=False, init_weights=False),
    "vit_b_16": partial(vision, "vit_b_16", 32, image_size=32, num_classes=10),
    "maxvit_t": partial(vision, "maxvit_t", 224),
    "deeplabv3_mobilenet_v3_large": partial(_segmentation, "deeplabv3_mobilenet_v3_large"),
    "lraspp_mobilenet_v3_large": partial(_segmentation, "lraspp_mobilenet_v3_large"),
    **{
        f"timm_{name}": partial(_timm, f"test_{name}", side)
        for name, side in (
            ("vit", 160), ("vit2", 64), ("vit3", 160), ("vit4", 160), ("efficientnet", 64), ("efficientnet_gn", 64),
            ("efficientnet_ln", 64), ("efficientnet_evos", 64), ("resnet", 64), ("convnext", 64), ("convnext2", 64),
            ("convnext3", 64), ("byobnet", 64), ("nfnet", 64), ("mambaout", 64),
        )
    },
    "timm_ghostnet": partial(_timm, "ghostnet_050"),
    "timm_mixer": partial(_timm, "mixer_s32_224", 64, img_size=64),
    "timm_poolformer": partial(_timm, "poolformer_s12"),
    "bert": partial(_hugging_face, "bert", "AutoModelForSequenceClassification", **_TEXT),
    "distilbert": partial(
        _hugging_face, "distilbert", "AutoModelForSequenceClassification",
        vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=64,
    ),
    "roberta": partial(_hugging_face, "roberta", "AutoModelForMaskedLM", **_TEXT),
    "electra": partial(_hugging_face, "electra", "AutoModelForSequenceClassification", embedding_size=16, **_TEXT),
    "albert": partial(_hugging_face, "albert", "AutoModelForSequenceClassification", embedding_size=16, **_TEXT),
    "gpt2": partial(
        _hugging_face, "gpt2", "AutoModelForCausalLM", vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64
    ),
    "gpt_neox": partial(_hugging_face, "gpt_neox", "AutoModelForCausalLM", **_TEXT),
    "opt": partial(
        _hugging_face, "opt", "AutoModelForCausalLM",
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=40,
        max_position_embeddings=64, word_embed_proj_dim=32,
    ),
    "llama": partial(_hugging_face, "llama", "AutoModelForCausalLM", **_GROUPED),
    "mistral": partial(_hugging_face, "mistral", "AutoModelForCausalLM", head_dim=8, **_GROUPED),
    "qwen2": partial(_hugging_face, "qwen2", "AutoModelForCausalLM", **_GROUPED),
    "qwen3": partial(_hugging_face, "qwen3", "AutoModelForCausalLM", head_dim=8, **_GROUPED),
    "gemma": partial(_hugging_face, "gemma", "AutoModelForCausalLM", head_dim=8, **_GROUPED),
    "phi": partial(_hugging_face, "phi", "AutoModelForCausalLM", **_TEXT),
    "t5": partial(
        _hugging_face, "t5", "AutoModelForSeq2SeqLM", "both",
        vocab_size=99, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4,
    ),
    "bart": partial(
        _hugging_face, "bart", "AutoModelForSeq2SeqLM", "both",
        vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64,
    ),
    "bloom": partial(
        _hugging_face, "bloom", "AutoModelForCausalLM", vocab_size=99, hidden_size=32, n_layer=2, n_head=4
    ),
    "falcon": partial(
        _hugging_face, "falcon", "AutoModelForCausalLM",
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_hidden_size=40,
    ),
    "whisper": partial(
        _hugging_face, "whisper", "AutoModelForSpeechSeq2Seq", "sound",
        vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, num_mel_bins=8, max_source_positions=12,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        suppress_tokens=None, begin_suppress_tokens=None,
    ),
    "clip": partial(
        _hugging_face, "clip", "AutoModel", "pair", projection_dim=16,
        text_config={**_TEXT, "eos_token_id": 9, "bos_token_id": 1, "pad_token_id": 0}, vision_config=_IMAGE,
    ),
    "hf_vit": partial(_hugging_face, "vit", "AutoModelForImageClassification", "image", **_IMAGE),
}  # fmt: skip
"""Name -> a function that makes the network and its inputs."""

REWRITTEN = {"swin_v2_t": "ScatterND"}
"""Networks in which the frontends differ, each by an operator that torch's exporter writes for something else."""
