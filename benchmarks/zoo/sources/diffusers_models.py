"""diffusers: every model class that its own small config builds, by the kinds of blocks that they are made of."""

from __future__ import annotations

from typing import Any

import torch

from sources import Made, Source

BLOCKS = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 16}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


_STEP, _TEXT = torch.tensor([7]), (1, 6, 24)

CONFIGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "unet_2d": (
        "UNet2DModel",
        {**BLOCKS, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
         "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 8},
        {"sample": _noise(1, 3, 16, 16), "timestep": _STEP},
    ),
    "unet_2d_condition": (
        "UNet2DConditionModel",
        {**BLOCKS, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
         "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 24, "attention_head_dim": 4},
        {"sample": _noise(1, 4, 16, 16), "timestep": _STEP, "encoder_hidden_states": _noise(*_TEXT)},
    ),
    "unet_2d_condition_linear": (
        "UNet2DConditionModel",
        {**BLOCKS, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
         "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 24, "attention_head_dim": (2, 4),
         "use_linear_projection": True, "resnet_time_scale_shift": "scale_shift"},
        {"sample": _noise(1, 4, 16, 16), "timestep": _STEP, "encoder_hidden_states": _noise(*_TEXT)},
    ),
    "controlnet": (
        "ControlNetModel",
        {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 24,
         "attention_head_dim": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
         "conditioning_embedding_out_channels": (8, 16)},
        {"sample": _noise(1, 4, 16, 16), "timestep": _STEP, "encoder_hidden_states": _noise(*_TEXT),
         "controlnet_cond": _noise(1, 3, 32, 32)},
    ),
    "vae": (
        "AutoencoderKL",
        {**BLOCKS, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2},
        {"sample": _noise(1, 3, 16, 16)},
    ),
    "vae_tiny": (
        "AutoencoderTiny",
        {"encoder_block_out_channels": (16, 16), "decoder_block_out_channels": (16, 16), "num_encoder_blocks": (1, 1),
         "num_decoder_blocks": (1, 1)},
        {"sample": _noise(1, 3, 16, 16)},
    ),
    "vq": (
        "VQModel",
        {**BLOCKS, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
         "num_vq_embeddings": 32},
        {"sample": _noise(1, 3, 16, 16)},
    ),
    "dit": (
        "DiTTransformer2DModel",
        {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
         "sample_size": 8, "num_embeds_ada_norm": 20},
        {"hidden_states": _noise(1, 4, 8, 8), "timestep": _STEP, "class_labels": torch.tensor([3])},
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
         "sample_size": 8, "cross_attention_dim": 16, "caption_channels": 24, "use_additional_conditions": False},
        {"hidden_states": _noise(1, 4, 8, 8), "timestep": _STEP, "encoder_hidden_states": _noise(*_TEXT)},
    ),
    "stable_diffusion_3": (
        "SD3Transformer2DModel",
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 2, "attention_head_dim": 8,
         "num_attention_heads": 2, "joint_attention_dim": 24, "caption_projection_dim": 16, "pooled_projection_dim": 20,
         "out_channels": 4, "pos_embed_max_size": 8},
        {"hidden_states": _noise(1, 4, 8, 8), "timestep": _STEP, "encoder_hidden_states": _noise(*_TEXT),
         "pooled_projections": _noise(1, 20)},
    ),
    "flux": (
        "FluxTransformer2DModel",
        {"patch_size": 1, "in_channels": 8, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 2, "joint_attention_dim": 24, "pooled_projection_dim": 20, "axes_dims_rope": (4, 4, 8)},
        {"hidden_states": _noise(1, 16, 8), "timestep": torch.tensor([0.5]), "encoder_hidden_states": _noise(*_TEXT),
         "pooled_projections": _noise(1, 20), "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(6, 3)},
    ),
    "unet_1d": (
        "UNet1DModel",
        {"block_out_channels": (16, 32), "sample_size": 32, "in_channels": 4, "out_channels": 4,
         "down_block_types": ("DownBlock1DNoSkip", "DownBlock1D"), "up_block_types": ("UpBlock1D", "UpBlock1DNoSkip"),
         "extra_in_channels": 32, "time_embedding_type": "fourier", "flip_sin_to_cos": True,
         "use_timestep_embedding": False, "mid_block_type": "UNetMidBlock1D"},
        {"sample": _noise(1, 4, 32), "timestep": _STEP},
    ),
}  # fmt: skip
"""Name -> class, its config, example inputs."""


class Sample(torch.nn.Module):
    """A model that returns tensors alone."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs, return_dict=False)


def _prepare() -> Any:
    import compiled_operators

    compiled_operators.define()
    import diffusers

    return diffusers


def _make(name: str) -> Made:
    kind, config, inputs = CONFIGS[name]
    module = Sample(getattr(_prepare(), kind)(**config).eval())
    with torch.no_grad():
        module(**inputs)
    return Made(module, (), dict(inputs))


SOURCE = Source("diffusers", _prepare, lambda: list(CONFIGS), _make, lambda name: CONFIGS[name][0])
