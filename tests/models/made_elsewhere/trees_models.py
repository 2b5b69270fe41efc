"""Estimators of scikit-learn, LightGBM and XGBoost through skl2onnx and onnxmltools."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from skl2onnx import to_onnx
from sklearn.base import is_regressor
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

OPSETS = {"": 18, "ai.onnx.ml": 3}
"""Isolation forests are refused with the newest."""

WIDTH = 8
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, WIDTH)).astype(np.float32)
CLASSES = (X[:, 0] + X[:, 1] ** 2 > 1).astype(np.int64) + (X[:, 2] > 0.5)
NUMBERS = (X[:, 0] * X[:, 1] + X[:, 3]).astype(np.float32)

LAYERS: dict[str, Any] = {"hidden_layer_sizes": (24, 16), "max_iter": 40, "random_state": 0}
FOREST: dict[str, Any] = {"n_estimators": 5, "random_state": 0}
LIGHT: dict[str, Any] = {"num_leaves": 7, "verbose": -1, **FOREST}

NETWORKS = {
    "clusters": make_pipeline(PCA(4, random_state=0), KMeans(3, n_init=2, random_state=0)),
    "mlp_classifier": make_pipeline(StandardScaler(), MLPClassifier(**LAYERS)),
    "mlp_regressor": MLPRegressor(activation="tanh", **LAYERS),
}
ESTIMATORS = {
    "gradient_boosting": GradientBoostingRegressor(max_depth=3, **FOREST),
    "isolation_forest": IsolationForest(max_samples=32, **FOREST),
    "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "neighbours": KNeighborsClassifier(3),
    "random_forest": RandomForestClassifier(max_depth=4, **FOREST),
    "support_vectors": SVC(random_state=0),
}
OTHERS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "lightgbm_classifier": (lightgbm.LGBMClassifier(**LIGHT), onnxmltools.convert_lightgbm),
    "lightgbm_regressor": (lightgbm.LGBMRegressor(**LIGHT), onnxmltools.convert_lightgbm),
    "xgboost_classifier": (xgboost.XGBClassifier(max_depth=3, **FOREST), onnxmltools.convert_xgboost),
}


def main(folder: Path) -> None:
    for place, estimators in (("networks", NETWORKS), ("estimators", ESTIMATORS)):
        for name, estimator in estimators.items():
            # Classifiers return a list of dictionaries, as they do by default, but one that returns a tensor.
            options = {"zipmap": False} if name == "mlp_classifier" else None
            proto = to_onnx(_fitted(estimator), X[:1], options=options, target_opset=OPSETS)
            (folder / place / f"sklearn_{name}.onnx").write_bytes(proto.SerializeToString())
    for name, (estimator, convert) in OTHERS.items():
        proto = convert(_fitted(estimator), initial_types=[("x", ToolsFloat([None, WIDTH]))])
        (folder / "estimators" / f"{name}.onnx").write_bytes(proto.SerializeToString())


def _fitted(estimator: Any) -> Any:
    return estimator.fit(X, NUMBERS if is_regressor(estimator) else CLASSES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
