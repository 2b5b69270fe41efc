"""Imports every module that registers rules, once, and holds the table of operators that freeze.

An operator stands in that table only where nothing better is true; each has a reason of its own.
"""

from __future__ import annotations

from functools import lru_cache

from ozgraph.rules.rule import register_freezing


@lru_cache(maxsize=1)
def load() -> None:
    """Register all rules."""
    from ozgraph.rules import (  # noqa: F401  (imported for what they register)
        attention,
        contrib,
        elementwise,
        indexing,
        linear,
        movement,
        normalization,
        quantization,
        recurrent,
        reduction,
        windows,
    )

    register_freezing("NonZero Unique Compress", "how many elements it returns depends on the data")
    register_freezing("NonMaxSuppression", "which boxes it returns depends on the data")
    register_freezing("If Loop Scan", "what its body does with the axes is not followed")
    register_freezing(
        "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
        "SplitToSequence ConcatFromSequence",
        "tensors in a sequence are not followed",
    )
    register_freezing("Optional OptionalGetElement OptionalHasElement", "optional values are not followed")
    register_freezing("Shape Size", "a size is read as a number")
    register_freezing("Range EyeLike", "its size is computed at run time")
    register_freezing(
        "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial",
        "it draws random numbers",
    )
    register_freezing("DFT STFT HannWindow HammingWindow BlackmanWindow MelWeightMatrix", "it transforms along time")
    register_freezing("Det", "a determinant depends on every element")
    register_freezing(
        "StringConcat StringNormalizer StringSplit RegexFullMatch TfIdfVectorizer ai.onnx.ml.LabelEncoder",
        "it works on text",
    )
    register_freezing("ImageDecoder", "it decodes a file")
    register_freezing("Constant", "it holds something other than a dense tensor")
    register_freezing("OneHot", "the number of its classes is read as a number")
    register_freezing("AffineGrid", "it makes coordinates out of sizes")
    register_freezing("CenterCropPad", "it crops or pads to sizes that are computed at run time")
    register_freezing("MaxUnpool", "it writes to positions that are looked up at run time")
    register_freezing("TensorScatter", "it writes into a cache at positions that are looked up at run time")
    register_freezing("DeformConv", "its offsets belong to positions in the window")
    register_freezing("CausalConvWithState LinearAttention", "it carries a state from run to run")
    register_freezing("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss", "a loss counts every class")
