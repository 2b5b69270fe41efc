"""Every rule for ATen, and the operators that freeze; importing this module registers all of them."""

from __future__ import annotations

from ozgraph.rules.aten import (  # noqa: F401  (imported for what they register)
    aliases,
    attention,
    elementwise,
    indexing,
    joining,
    linear,
    movement,
    normalization,
    recurrent,
    reduction,
    windows,
)
from ozgraph.rules.registry import register_freezing

register_freezing(
    "aten.nonzero aten.nonzero_static aten.masked_select aten.unique_dim aten._unique2 aten.unique_consecutive "
    "aten.bincount",
    "how many elements it returns depends on the data",
)
register_freezing("aten.histc aten.histogram", "it counts values into bins")
register_freezing("aten.arange aten.range aten.linspace aten.logspace aten.eye", "its elements stand for positions")
register_freezing(
    "aten.rand aten.randn aten.randint aten.randperm aten.rand_like aten.randn_like aten.randint_like aten.bernoulli "
    "aten.multinomial aten.normal aten.normal_functional aten.uniform aten.exponential aten.random "
    "aten.alpha_dropout aten.feature_alpha_dropout",
    "it draws random numbers",
)
register_freezing(
    "aten._transformer_encoder_layer_fwd aten._native_multi_head_attention",
    "it is a fused kernel of inference, which has no training twin",
)
register_freezing("aten.cdist aten.pdist aten.cosine_similarity", "a distance over it counts every slot")
register_freezing("aten.scalar_tensor aten.item aten._local_scalar_dense", "a single element is read as a number")
register_freezing(
    "higher_order.cond higher_order.while_loop higher_order.map_impl higher_order.scan higher_order.associative_scan",
    "what its body does with the axes is not followed",
)
register_freezing(
    "aten.cross_entropy_loss aten.nll_loss aten.nll_loss_nd aten.binary_cross_entropy_with_logits aten.mse_loss "
    "aten.kl_div aten.l1_loss aten.smooth_l1_loss",
    "a loss counts every element",
)
register_freezing("aten.fft_fft aten.fft_ifft aten.fft_rfft aten.fft_irfft aten.stft", "it transforms along time")
register_freezing("aten.linalg_inv aten.linalg_det aten.linalg_svd aten.linalg_qr", "it depends on every element")
