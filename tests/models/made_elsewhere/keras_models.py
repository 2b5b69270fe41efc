"""Networks of Keras on TensorFlow through tf2onnx: channels last, heads as einsum, loops of cells."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="")

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers


def convolutions() -> keras.Model:
    """A residual block, a depthwise layer and a join, channels last, with batch norms and a softmax."""
    image = keras.Input((16, 16, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(12, 3, padding="same", use_bias=False)(image)))
    y = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(20, 1)(x)))
    y = layers.Activation("swish")(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(y)))
    x = layers.Add()([x, layers.Conv2D(12, 1)(y)])
    side = layers.SeparableConv2D(10, 3, padding="same", activation="sigmoid")(x)
    x = layers.MaxPooling2D()(layers.Concatenate()([x, side]))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(14, 3, activation="relu")(x))
    return keras.Model(image, layers.Dense(5, activation="softmax")(layers.Dense(18, activation="relu")(x)))


def segmentation() -> keras.Model:
    """Down and up again over a skip, with squeezed gates; height and width vary."""
    image = keras.Input((None, None, 3))
    high = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    low = layers.BatchNormalization()(layers.Conv2D(12, 3, strides=2, padding="same", activation="relu")(high))
    gate = layers.Dense(12, activation="sigmoid")(
        layers.Dense(6, activation="relu")(layers.GlobalAveragePooling2D()(low))
    )
    low = layers.Multiply()([low, layers.Reshape((1, 1, 12))(gate)])
    up = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(low)
    up = layers.Add()([up, layers.UpSampling2D(2)(layers.Conv2D(8, 1)(low))])
    joined = layers.LeakyReLU()(layers.Conv2D(10, 3, padding="same")(layers.Concatenate()([high, up])))
    return keras.Model(image, layers.Conv2D(4, 1)(joined))


class Positions(layers.Layer):
    """Adds a learned vector to every position."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer="uniform")

    def call(self, x: Any) -> Any:
        return x + self.table


def transformer() -> keras.Model:
    """An encoder block around MultiHeadAttention, whose heads are an axis of its weights.

    GELU by tanh: tf2onnx 1.17.0 does not write Erfc, which Keras 3.15 computes the other one with.
    """
    tokens = keras.Input((10,), dtype="int32")
    x = Positions()(layers.Embedding(30, 16)(tokens))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 4)(x, x))
    hidden = layers.Dense(24, activation=partial(keras.activations.gelu, approximate=True))(x)
    x = layers.LayerNormalization()(x + layers.Dense(16)(hidden))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def recurrent() -> keras.Model:
    """An LSTM over a sequence of any length, another that reads both ways, and a last state."""
    sequence = keras.Input((None, 6))
    x = layers.LSTM(12, return_sequences=True)(sequence)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(sequence, layers.Dense(3)(layers.GRU(10)(layers.Dense(14, activation="relu")(x))))


NETWORKS = {
    "convolutions": (convolutions, (None, 16, 16, 3), tf.float32),
    "segmentation": (segmentation, (None, None, None, 3), tf.float32),
    "transformer": (transformer, (None, 10), tf.int32),
    "recurrent": (recurrent, (None, None, 6), tf.float32),
}


def main(folder: Path) -> None:
    for name, (build, shape, kind) in NETWORKS.items():
        keras.utils.set_random_seed(0)
        model = build()
        _perturb(model)
        signature = (tf.TensorSpec(shape, kind, name="x"),)
        function = tf.function(lambda x, model=model: model(x, training=False), input_signature=signature)
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
        (folder / "networks" / f"keras_{name}.onnx").write_bytes(proto.SerializeToString())


def _perturb(model: Any) -> None:
    """Move every weight from where it starts, so that zeros and ones hide nothing; variances stay positive."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        noise = draw.normal(scale=0.1, size=weight.shape).astype("float32")
        weight.assign(weight.numpy() + (abs(noise) if "variance" in weight.path else noise))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
