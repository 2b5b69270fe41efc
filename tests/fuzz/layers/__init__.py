"""Layers of random models. Each takes a tensor of the pool and adds what it makes, or says that it does not fit.

They enter themselves in :data:`LAYERS` in the order of these imports, by which seeds draw them: a layer in another
place gives every seed another model.
"""

# isort: off
from fuzz.layers import weights, norms, attention, pointwise, movement, control
from fuzz.workshop import LAYERS

__all__ = ["LAYERS", "attention", "control", "movement", "norms", "pointwise", "weights"]
