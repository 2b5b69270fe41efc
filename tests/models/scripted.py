"""Small scripted torch networks with branches, loops and lists, as torch's TorchScript exporter writes them."""

# Modules called and attributes of modules are untyped in torch.
# mypy: disable-error-code="no-any-return, misc"

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import onnx
import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """A recurrent cell in a loop, then one of three layers, chosen by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(6, 10), nn.Linear(10, 10)
        self.a, self.b, self.c = nn.Linear(10, 12), nn.Linear(10, 12), nn.Linear(10, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 10)
        for _ in range(4):
            h = torch.tanh(self.x(x) + self.h(h))
        if bool(h.sum() > 0.5):
            y = torch.relu(self.a(h))
        elif bool(h.sum() > 0):
            y = self.b(h)
        else:
            y = torch.tanh(self.c(h))
        return self.head(y)


class Collecting(nn.Module):
    """A recurrent network over a sequence of any length that collects its states in a list, and stacks them."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(6, 10), nn.Linear(10, 10)
        self.wide, self.head = nn.Linear(10, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 10)
        states = []
        for step in range(x.shape[1]):
            h = torch.tanh(self.x(x[:, step]) + self.h(h))
            states.append(h)
        return self.head(torch.relu(self.wide(torch.stack(states, 1))))


class Refining(nn.Module):
    """A residual block that is applied until the data say stop, between two axes that come and go by size."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down, self.head = (
            nn.Linear(6, 10),
            nn.Linear(10, 16),
            nn.Linear(16, 10),
            nn.Linear(10, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        runs = 0
        while bool(h.abs().mean() < 2.0) and runs < 5:
            h = h + self.down(torch.relu(self.up(h)))
            runs += 1
        return self.head(h.unsqueeze(1).squeeze(1))


NETS: dict[str, tuple[type[nn.Module], tuple[int, ...], Mapping[int, str]]] = {
    "gated": (Gated, (2, 6), {0: "batch"}),
    "collecting": (Collecting, (2, 5, 6), {0: "batch", 1: "sequence"}),
    "refining": (Refining, (2, 6), {}),
}
"""The network, the shape of its input, and the axes that vary."""


def scripted(name: str) -> onnx.ModelProto:
    """The network as the exporter writes it."""
    made, shape, axes = NETS[name]
    torch.manual_seed(1)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are said to be deprecated; models that they wrote are not
        module = torch.jit.script(made().eval())
        torch.onnx.export(
            module,
            (torch.randn(shape),),
            buffer,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": dict(axes)} if axes else None,
            opset_version=17,
        )
    return onnx.load_from_string(buffer.getvalue())
