"""Hugging Face transformers: every model type that has a head for a task, from its own config made tiny.

No type is described here. A config's integers are shrunk by what their names mean in all configs (a width, a number of
layers, a vocabulary, ...); of a few ways to do it the first counts with which the library builds a model that runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sources import Made, Source, UnbuildableError, first_that_runs

TASKS = (
    "CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION",
    "OBJECT_DETECTION", "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "INSTANCE_SEGMENTATION",
    "DEPTH_ESTIMATION", "IMAGE_TO_IMAGE", "VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION", "CTC", "SPEECH_SEQ_2_SEQ",
    "ZERO_SHOT_IMAGE_CLASSIFICATION", "ZERO_SHOT_OBJECT_DETECTION", "IMAGE_TEXT_TO_TEXT", "TIME_SERIES_PREDICTION",
    "QUESTION_ANSWERING", "KEYPOINT_DETECTION", "TEXT_TO_SPECTROGRAM", "PRETRAINING",
)  # fmt: skip
"""Tasks of ``transformers``; a model type counts for the first that has a head for it."""

MOST_PARAMETERS = 32_000_000
"""What a tiny model may have at most; a config that stays larger was not understood."""


class Main(nn.Module):
    """A model that returns what its task asks for, without hidden states and caches."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.inner(*args, **kwargs)
        if not hasattr(found, "items"):
            return found
        named = {name: value for name, value in found.items() if not _by_the_way(name) and isinstance(value, Tensor)}
        tensors = named or {name: value for name, value in found.items() if isinstance(value, Tensor)}
        return tuple(tensors.values())


def _by_the_way(name: str) -> bool:
    return any(part in name for part in ("hidden_state", "past_", "cache", "attentions", "extract_features", "_output"))


def _prepare() -> Any:
    import compiled_operators

    compiled_operators.define()
    import transformers

    return transformers


def _mapping(task: str) -> dict[str, Any]:
    from transformers.models.auto import modeling_auto

    return dict(getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"))


def _names() -> list[str]:
    """All types with a head, the tasks in turn and types in a fixed random order: any beginning is a fair sample."""
    rows = []
    for task in TASKS:
        kinds = sorted(kind for kind in _mapping(task) if _kind(kind) == task.lower())
        random.Random(0).shuffle(kinds)
        rows += [(position / len(kinds), kind) for position, kind in enumerate(kinds)]
    return [kind for _, kind in sorted(rows, key=lambda row: row[0])]


def _kind(name: str) -> str:
    return next((task.lower() for task in TASKS if name in _mapping(task)), "other")


def _make(name: str) -> Made:
    transformers = _prepare()
    heads = _mapping(_kind(name).upper())[name]
    head = getattr(transformers, heads if isinstance(heads, str) else heads[0])
    problems: list[str] = []
    for shrink in (_uniform, _even_heads, _in_proportion, _shallow):
        try:
            config = transformers.AutoConfig.for_model(name)
            _shrunk(config, shrink)
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in head(config).parameters())
            if size > MOST_PARAMETERS:
                raise UnbuildableError(f"{size} parameters")
            module = Main(head(config).eval())
            return first_that_runs(module, _inputs(module.inner, config))
        except Exception as error:
            problems.append(f"{shrink.__name__[1:]}: {type(error).__name__}: {error}".partition("\n")[0])
    raise UnbuildableError("; ".join(problems)[:600])


Shrink = Callable[[str, int], int]


def _uniform(name: str, value: int) -> int:
    """Every width alike."""
    if _has(name, "vocab_size"):
        return 99
    if _has(name, "num_key_value_heads", "num_kv_heads", "multi_query_group_num"):
        return min(value, 2)
    if _has(name, "num_attention_heads", "attention_heads", "n_head", "num_heads", "heads"):
        return min(value, 4)
    if name == "head_dim" or _has(
        name, "kv_channels", "d_kv", "rotary_dim", "rope_head_dim", "nope_head_dim", "v_head_dim"
    ):
        return min(value, 8)
    if _has(name, "experts_per_tok", "top_k"):
        return min(value, 2)
    if _has(name, "num_local_experts", "num_experts", "n_routed_experts"):
        return min(value, 4)
    if _has(name, "num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers", "depth"):
        return min(value, 2)
    if _has(name, "max_position", "n_positions", "max_seq", "max_source", "max_target", "n_ctx", "max_length"):
        return min(value, 128)
    if _has(name, "intermediate_size", "ffn_dim", "d_ff", "n_inner", "hidden_dim", "mlp_dim", "ffn"):
        return min(value, 48)
    if (
        _has(name, "hidden_size", "d_model", "n_embd", "embed_dim", "projection_dim", "embedding_size", "d_inner")
        or name == "dim"
    ):
        return min(value, 32)
    return _common(name, value)


def _even_heads(name: str, value: int) -> int:
    """Every width alike, and as many key-value heads as heads, which latent attention wants."""
    return min(value, 4) if _has(name, "num_key_value_heads", "num_kv_heads") else _uniform(name, value)


def _in_proportion(name: str, value: int) -> int:
    """Widths an eighth of what they were, numbers of heads as they are."""
    if _has(name, "vocab_size"):
        return 99
    if _has(name, "num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers"):
        return min(value, 2)
    if _has(name, "size", "dim", "d_model", "n_embd", "d_ff", "channels") and value % 8 == 0 and value >= 128:
        return _common(name, value) if _has(name, "image", "patch", "position") else value // 8
    return _common(name, value)


def _shallow(name: str, value: int) -> int:
    """Fewer layers, a small vocabulary; everything else as it is."""
    if _has(name, "vocab_size"):
        return 99
    if _has(name, "num_hidden_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers"):
        return min(value, 2)
    return value


def _common(name: str, value: int) -> int:
    if name in ("image_size", "img_size") and value > 64:
        return 64
    if name in ("num_frames", "frames"):
        return min(value, 2)
    if name in ("num_queries",):
        return min(value, 10)
    return value


def _has(name: str, *parts: str) -> bool:
    return any(part in name for part in parts)


def _shrunk(config: Any, shrink: Shrink) -> None:
    """A config with its integers shrunk, and those of the configs inside it; in place."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _shrunk(value, shrink)
        elif value is None and name == "vocab_size":  # the tokenizer would say
            _set(config, name, 99)
        elif isinstance(value, bool) or name.endswith("_token_id") or name.startswith("_"):
            continue
        elif isinstance(value, int) and value > 1:
            smaller = shrink(name, value)
            if smaller != value:
                _set(config, name, smaller)
        elif name == "layer_types" and isinstance(value, (list, tuple)):
            layers = getattr(config, "num_hidden_layers", len(value))
            kinds = dict.fromkeys(value)
            _set(
                config, name, [*kinds, *value[len(kinds) :]][:layers] if len(kinds) <= layers else list(value)[:layers]
            )
        elif name in ("depths", "encoder_depths", "num_layers") and isinstance(value, (list, tuple)):
            _set(config, name, type(value)(1 for _ in value))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        held = getattr(config, name, None)
        if isinstance(held, int) and held >= 99:
            _set(config, name, min(("pad", "bos", "eos", "decoder").index(name.partition("_")[0]), 2))
    for value in list(vars(config).values()):
        if isinstance(value, dict) and isinstance(value.get("mrope_section"), (list, tuple)):
            value["mrope_section"] = _sections(value["mrope_section"], _head_width(config) // 2)
    _set(config, "use_cache", False)


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _sections(given: Any, total: int) -> list[int]:
    """How many angles time, height and width have, in the same proportions; the first has what is left over."""
    rest = [max(size * total // sum(given), 1) for size in given[1:]]
    return [total - sum(rest), *rest]


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except Exception:  # a property of some configs; it follows from what can be set
        return


def _inputs(module: Any, config: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Inputs by the names that ``forward`` takes, likely ones first."""
    import inspect

    names = inspect.signature(module.forward).parameters
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def tokens(length: int) -> Tensor:
        return torch.randint(3, 90, (1, length), generator=generator)

    text: dict[str, Any] = {}
    if "input_ids" in names:
        text = {"input_ids": tokens(8)}
        if "attention_mask" in names:
            text["attention_mask"] = torch.ones(1, 8, dtype=torch.long)
        if "bbox" in names:
            text["bbox"] = torch.randint(0, 50, (1, 8, 4), generator=generator).sort(-1).values
    if "visual_feats" in names:  # regions that a detector found, and where
        text["visual_feats"] = noise(1, 4, getattr(config, "visual_feat_dim", 16))
        text["visual_pos"] = torch.rand(1, 4, getattr(config, "visual_pos_dim", 4), generator=generator)
    if "decoder_input_ids" in names:
        text["decoder_input_ids"] = tokens(5)
    pictures: list[dict[str, Any]] = []
    if "pixel_values" in names:
        vision = getattr(config, "vision_config", None) or getattr(config, "backbone_config", None) or config
        channels = getattr(vision, "num_channels", None) or getattr(config, "num_channels", 3)
        side = getattr(vision, "image_size", None) or getattr(config, "image_size", None)
        sides = [side if isinstance(side, int) else max(side)] if side else []
        sizes = dict.fromkeys([*sides, 64, 96, 224])
        pictures += [{"pixel_values": noise(1, channels, size, size)} for size in sizes]
        frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
        if frames:
            pictures.insert(0, {"pixel_values": noise(1, frames, channels, *(sides or [64]) * 2)})
    if "pixel_values_videos" in names:
        frames = getattr(config, "frames_per_clip", 2)
        pictures.insert(0, {"pixel_values_videos": noise(1, frames, 3, *[getattr(config, "crop_size", 64)] * 2)})
    sound: list[dict[str, Any]] = []
    if "input_values" in names:
        bins, length = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
        if bins and length:
            sound.append({"input_values": noise(1, length, bins)})
        sound.append({"input_values": noise(1, 4000)})
    if "input_features" in names:
        bins = getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", None) or 80
        positions = getattr(config, "max_source_positions", None)
        if positions:
            sound.append({"input_features": noise(1, bins, 2 * positions)})
        sound += [{"input_features": noise(1, 64, bins)}, {"input_features": noise(1, bins, 64)}]
    series: list[dict[str, Any]] = []
    if "past_values" in names:
        context = getattr(config, "context_length", 32)
        channels = getattr(config, "num_input_channels", 1)
        series.append({"past_values": noise(1, context, channels)})
    main = getattr(module, "main_input_name", "input_ids")
    lone = [pictures, sound] if main.startswith("pixel") else [sound, pictures]
    if main == "input_ids":
        both = [{**text, **picture} for picture in pictures[:2]]
        options = [*(both if getattr(config, "projection_dim", None) else []), *([text] if text else []), *both]
        options += [each for kind in lone for each in kind]
    else:
        only = {name: value for name, value in text.items() if name.startswith("decoder")}
        options = [{**only, **each} for kind in lone for each in kind]
        options += [{**text, **each} for kind in lone for each in kind]
    for each in [*options, *series]:
        yield (), each


SOURCE = Source("huggingface", _prepare, _names, _make, _kind)
