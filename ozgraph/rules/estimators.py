"""Operators of ``ai.onnx.ml``, of which converters make trees, kernels and what stands before them.

Their weights are attributes or leaves, so that no slot could go. They freeze what they touch: models made of them alone
pass through unchanged. Perceptrons beside them are made of operators of the default domain, and prune.
"""

from __future__ import annotations

from ozgraph.rules.registry import register_freezing

_ML = "ai.onnx.ml."


def _freeze(operators: str, reason: str) -> None:
    register_freezing(" ".join(_ML + name for name in operators.split()), reason)


_freeze("TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor", "a tree reads features by their numbers")
_freeze(
    "LinearClassifier LinearRegressor SVMClassifier SVMRegressor Scaler Imputer",
    "its weights are attributes, some for each feature",
)
_freeze("ArrayFeatureExtractor", "positions along it are looked up at run time")
_freeze("Normalizer", "a norm over it sees every slot")
_freeze("FeatureVectorizer", "features of several operands stand in a fixed order")
_freeze("Binarizer CategoryMapper OneHotEncoder", "it turns numbers or words into categories")
_freeze("CastMap DictVectorizer ZipMap", "it reads or makes dictionaries")
