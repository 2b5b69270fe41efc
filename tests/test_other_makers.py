"""A convolutional network, an encoder and a recurrent one as other tools write them: half of what is free goes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily
from ozgraph.api import PruneResult

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Convolutions(nn.Module):
    """A residual network with a depthwise layer, a join and a pooled classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 20, 1)
        self.norm, self.depthwise = nn.BatchNorm2d(20), nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.narrow, self.side = nn.Conv2d(20, 12, 1), nn.Conv2d(12, 6, 3, padding=1)
        self.head = nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.narrow(F.relu(self.depthwise(F.relu(self.norm(self.wide(x))))))
        return self.head(torch.cat((x, torch.sigmoid(self.side(x))), 1).mean((2, 3)))


class Encoder(nn.Module):
    """Attention written out, as the transformer optimizer looks for it, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first, self.second = nn.Embedding(20, 16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        batch, length = tokens.shape
        q, k, v = (layer(x).view(batch, length, 4, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        x = self.first(x + self.out(y.transpose(1, 2).reshape(batch, length, 16)))
        x = self.second(x + self.down(F.gelu(self.up(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """Two layers that read both ways, and one that reads on, over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.on, self.head = nn.GRU(16, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.on(self.both(x)[0])[0][:, -1])


def _moved(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.copy_(0.1 * torch.randn(20, generator=generator))
                layer.running_var.copy_(0.75 + 0.5 * torch.rand(20, generator=generator))
    return module.eval()


def _convolutions() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return _moved(Convolutions()), torch.randn(2, 3, 8, 8)


def _encoder() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return _moved(Encoder()), torch.arange(12).reshape(2, 6)


def _recurrent() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return _moved(Recurrent()), torch.randn(2, 5, 6)


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {"convolutions": _convolutions, "encoder": _encoder}
AND_RECURRENT = {**NETS, "recurrent": _recurrent}

NEWEST = min(onnx.defs.onnx_opset_version(), 26)
"""The newest opset that onnxruntime runs, in the versions that these tests are written for."""


def traced(name: str, path: Path, opset: int = 17, **options: Any) -> Path:
    """As torch's older exporter writes it, which traces."""
    module, example = AND_RECURRENT[name]()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (example,), str(path), dynamo=False, opset_version=opset, **options)
    finally:
        logging.disable(logging.NOTSET)
    return path


def halved(path: Path, **options: Any) -> PruneResult:
    """Half of all free slots gone and verified; of every family that is active some."""
    result = ozgraph.prune(path, target=NOTHING, passes=[HalfOfEveryFamily()], rescale=True, **options)
    assert result.report.frozen_by_verification == ()
    assert result.state.verification is not None and result.state.verification.equal
    assert result.state.chosen.total == result.report.removed_slots > 0
    return result


@pytest.mark.parametrize("opset", range(9, 21))
@pytest.mark.parametrize("name", NETS)
def test_the_tracing_exporter_at_every_opset(name: str, opset: int, tmp_path: Path) -> None:
    least = 0.5 if name == "encoder" and opset < 17 else 0.8
    report = halved(traced(name, tmp_path / "model.onnx", opset)).report
    shares = ozgraph.analyze(tmp_path / "model.onnx", rescale=True).report
    assert shares.prunable_parameters > least * shares.parameters, shares.frozen[:3]
    assert report.parameters_after < report.parameters_before


@pytest.mark.parametrize("opset", [7, 8])
def test_opsets_that_only_converters_write(opset: int, tmp_path: Path) -> None:
    model = onnx.load(traced("convolutions", tmp_path / "model.onnx", 9, keep_initializers_as_inputs=True))
    model.opset_import[0].version = opset  # none of its operators changed between these versions
    onnx.save(model, tmp_path / "old.onnx")
    halved(tmp_path / "old.onnx")


@pytest.mark.parametrize(
    ("name", "opset"), [*(("encoder", opset) for opset in range(21, NEWEST + 1)), ("convolutions", NEWEST)]
)
def test_opsets_that_the_tracing_exporter_does_not_write(name: str, opset: int, tmp_path: Path) -> None:
    model = onnx.load(traced(name, tmp_path / "model.onnx", 20))
    onnx.save(onnx.version_converter.convert_version(model, opset), tmp_path / "new.onnx")
    halved(tmp_path / "new.onnx")


@pytest.mark.parametrize("name", AND_RECURRENT)
def test_sizes_that_vary(name: str, tmp_path: Path) -> None:
    axes = {0: "batch", 2: "height", 3: "width"} if name == "convolutions" else {0: "batch", 1: "length"}
    halved(traced(name, tmp_path / "model.onnx", input_names=["x"], dynamic_axes={"x": axes}))


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
@pytest.mark.parametrize("name", NETS)
def test_the_graph_that_onnxruntime_saves_after_its_optimisations(name: str, level: str, tmp_path: Path) -> None:
    path = traced(name, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    halved(tmp_path / "optimised.onnx")


def test_after_the_transformer_optimizer(tmp_path: Path) -> None:
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    path = traced("encoder", tmp_path / "model.onnx")
    logging.disable(logging.WARNING)
    try:
        made = optimizer.optimize_model(str(path), model_type="bert", num_heads=4, hidden_size=16, use_gpu=False)
    finally:
        logging.disable(logging.NOTSET)
    made.save_model_to_file(str(tmp_path / "fused.onnx"))
    assert any(node.domain == "com.microsoft" for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    halved(tmp_path / "fused.onnx")


@pytest.mark.parametrize("name", NETS)
def test_after_onnxsim(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxsim")
    halved(traced(name, tmp_path / "model.onnx"), simplify=True)


@pytest.mark.parametrize("name", NETS)
def test_in_float16(name: str, tmp_path: Path) -> None:
    module = pytest.importorskip("onnxruntime.transformers.float16")
    narrow = module.convert_float_to_float16(onnx.load(traced(name, tmp_path / "model.onnx")), keep_io_types=True)
    onnx.save(narrow, tmp_path / "half.onnx")
    halved(tmp_path / "half.onnx")


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model = onnx.load(traced("convolutions", tmp_path / "model.onnx"))
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    halved(tmp_path / "apart.onnx")


class _Samples(quantization.CalibrationDataReader):
    """A few random inputs to calibrate with."""

    def __init__(self, name: str, like: Tensor) -> None:
        draw = np.random.default_rng(0)
        shape = tuple(like.shape)
        whole = not like.is_floating_point()
        arrays = [draw.integers(0, 20, shape) if whole else draw.normal(size=shape).astype("float32") for _ in range(4)]
        self._left = [{name: array} for array in arrays]

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_after_static_quantization(name: str, per_channel: bool, tmp_path: Path) -> None:
    path = traced(name, tmp_path / "model.onnx", input_names=["x"])
    quantization.quantize_static(
        path,
        tmp_path / "quantised.onnx",
        _Samples("x", NETS[name]()[1]),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=per_channel,
    )
    result = halved(tmp_path / "quantised.onnx", output=tmp_path / "pruned.onnx")
    scales = {
        value.name: value.shape[0]
        for op in result.state.graph.ops
        if op.type == "DequantizeLinear" and (value := op.inputs[1]) is not None and max(value.shape or (1,)) > 1
    }
    assert bool(scales) == per_channel, "a scale of a whole tensor has no axis to slice"
    stored = {tensor.name: tensor.dims for tensor in onnx.load(tmp_path / "pruned.onnx").graph.initializer}
    sliced = [name for name, size in scales.items() if name in stored and stored[name][0] < size]
    assert len(sliced) >= len(scales) // 2, "scales go along with the channels that they belong to"
