"""ozgraph.export: what is zero in a module is not in the file, and the file computes what PyTorch does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402
from training.loops import net  # noqa: E402
from training.nets import Plain, images  # noqa: E402

import ozgraph  # noqa: E402
from models import torch_nets  # noqa: E402
from models.halving import NOTHING, HalfOfEveryFamily  # noqa: E402
from ozgraph import exporting  # noqa: E402
from ozgraph.backends.torch import zeroed  # noqa: E402
from ozgraph.passes.prove_dead import zeroing  # noqa: E402

torch.set_num_threads(1)


def ran(path: Path, *inputs: torch.Tensor, output: int = 0) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]
    found: np.ndarray = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})[output]
    return found


@pytest.mark.parametrize("name", ["resnet", "vit", "gqa_decoder", "recurrent"])
def test_half_of_the_slots_at_zero_are_not_in_the_file(name: str, tmp_path: Path) -> None:
    module, inputs, _ = torch_nets.sample(name)
    args = tuple(inputs.values())
    graph = ozgraph.capture(module, args)
    chosen = ozgraph.analyze(graph).state
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()])
    assert chosen.families
    module.load_state_dict({**module.state_dict(), **zeroed(graph, zeroing(result.state))})
    path = tmp_path / "small.onnx"
    report = ozgraph.export(module, args, path)
    assert report.removed_slots >= result.report.removed_slots * 0.9
    assert report.output == str(path.resolve())
    weights = {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    small = result.to_module()
    same = [key for key, tensor in small.named_parameters() if weights.get(key) == list(tensor.shape)]
    assert len(same) >= 0.5 * len(list(small.parameters()))
    with torch.no_grad():
        wanted = module(*args)
    gap = np.abs(ran(path, *args) - wanted.numpy()).max() / wanted.std().item()
    assert gap < max(1e-4, 3 * report.limit)


def test_names_axes_and_version_are_passed_on(tmp_path: Path) -> None:
    module = net(0)
    with torch.no_grad():
        module.fc1.weight[[0, 4]] = 0
        module.fc1.bias[[0, 4]] = 0
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    path = tmp_path / "named.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    report = ozgraph.export(
        module,
        images()[0],
        path,
        input_names=["image"],
        output_names=["label"],
        dynamic_shapes=({0: batch},),
        opset_version=18,
        external_data=True,
    )
    assert report.removed_slots == 2
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["label"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert next(opset.version for opset in model.opset_import if opset.domain == "") == 18
    assert {"conv1.weight", "fc1.weight", "fc2.bias"} <= {tensor.name for tensor in model.graph.initializer}
    assert path.with_name("named.onnx.data").exists()
    for size in (1, 5):
        x = images(size)[0][:1].repeat(size, 1, 1, 1)
        with torch.no_grad():
            np.testing.assert_allclose(ran(path, x), module.eval()(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


def test_the_mode_stays(tmp_path: Path) -> None:
    module = net(0)
    ozgraph.export(module, images()[0], tmp_path / "model.onnx")
    assert module.training and all(part.training for part in module.modules())


def test_a_file_that_differs_from_pytorch_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = net(0)
    unlike = net(1)
    right = exporting._to_onnx

    def wrong(program: object, *rest: object) -> None:
        right(torch.export.export(unlike.eval(), (images()[0],)), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "_to_onnx", wrong)
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with pytest.raises(ozgraph.OzgraphError, match="PyTorch"):
        ozgraph.export(module, images()[0], path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


class Labelled(nn.Module):
    """Scores, and the number of the class that an operator chooses by them."""

    def __init__(self, scores: nn.Module, choose: str) -> None:
        super().__init__()
        self.scores, self.choose = scores, choose

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.scores(x)
        return scores, getattr(scores, self.choose)(1)


def test_integer_outputs_are_those_of_torch(tmp_path: Path) -> None:
    scores, x = net(0, Plain).eval(), images()[0]
    first, last = Labelled(scores, "argmax").eval(), Labelled(scores, "argmin").eval()
    ozgraph.export(first, x, tmp_path / "first.onnx")
    ozgraph.export(last, x, tmp_path / "last.onnx")
    with torch.no_grad():
        assert (first(x)[1].numpy() == ran(tmp_path / "first.onnx", x, output=1)).all()
    judge = exporting._Judge(first, ((x,), {}), tmp_path / "first.onnx")
    judge.compare(tmp_path / "first.onnx")
    with pytest.raises(ozgraph.OzgraphError, match=r"output 1 .* integers"):
        judge.compare(tmp_path / "last.onnx")


def test_bad_input_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = net(0, Plain)
    with pytest.raises(ozgraph.OzgraphError, match="folder"):
        ozgraph.export(module, images()[0], tmp_path / "missing" / "model.onnx")
    with pytest.raises(ozgraph.OzgraphError, match="Plain"):
        ozgraph.export(module, torch.randn(2, 5), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ozgraph.OzgraphError, match="onnxscript"):
        ozgraph.export(module, images()[0], tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(module, nn.Module)
