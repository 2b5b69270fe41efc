"""Data movement that keeps every element: reshape, transpose, concatenation, splitting, broadcasting, padding."""

from __future__ import annotations

from ozgraph.rules.lattice import uniform
from ozgraph.rules.movement import reshaped
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Rule

register("aten.flatten aten.flatten.using_ints", Rule(reshaped, uniform, text="row-major"))
