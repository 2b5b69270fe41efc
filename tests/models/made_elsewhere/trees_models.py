"""Estimators of scikit-learn, LightGBM and XGBoost through skl2onnx and onnxmltools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from skl2onnx import to_onnx
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

PRUNE = {
    "mlp_classifier": make_pipeline(
        StandardScaler(), MLPClassifier(hidden_layer_sizes=(24, 16), max_iter=40, random_state=0)
    ),
    "mlp_regressor": MLPRegressor(hidden_layer_sizes=(24, 16), activation="tanh", max_iter=40, random_state=0),
}
STAY = {
    "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "random_forest": RandomForestClassifier(n_estimators=5, max_depth=4, random_state=0),
    "gradient_boosting": GradientBoostingRegressor(n_estimators=5, max_depth=3, random_state=0),
    "isolation_forest": IsolationForest(n_estimators=5, max_samples=32, random_state=0),
    "support_vectors": SVC(probability=False, random_state=0),
    "neighbours": KNeighborsClassifier(3),
    "clusters": make_pipeline(PCA(4, random_state=0), KMeans(3, n_init=2, random_state=0)),
}


def main(folder: Path) -> None:
    for name, estimator in {**PRUNE, **STAY}.items():
        stays = name in STAY
        estimator.fit(X, NUMBERS if "regressor" in name or "boosting" in name else CLASSES)
        # Classifiers return a list of dictionaries, as they do by default; those that prune return a tensor.
        options = None if stays or "regressor" in name else {"zipmap": False}
        _write(folder / f"sklearn_{name}.onnx", to_onnx(estimator, X[:1], options=options, target_opset=OPSETS))
    signature = [("x", ToolsFloat([None, WIDTH]))]
    forest: dict[str, Any] = {"n_estimators": 5, "random_state": 0}
    light = lightgbm.LGBMClassifier(num_leaves=7, verbose=-1, **forest).fit(X, CLASSES)
    _write(folder / "lightgbm_classifier.onnx", onnxmltools.convert_lightgbm(light, initial_types=signature))
    light = lightgbm.LGBMRegressor(num_leaves=7, verbose=-1, **forest).fit(X, NUMBERS)
    _write(folder / "lightgbm_regressor.onnx", onnxmltools.convert_lightgbm(light, initial_types=signature))
    boosted = xgboost.XGBClassifier(max_depth=3, **forest).fit(X, CLASSES)
    _write(folder / "xgboost_classifier.onnx", onnxmltools.convert_xgboost(boosted, initial_types=signature))


def _write(path: Path, model: Any) -> None:
    path.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
