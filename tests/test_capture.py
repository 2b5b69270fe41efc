"""Capture: a PyTorch module becomes a graph with the module's own names, and the module stays as it was."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ozgraph
from ozgraph.errors import ModelError, UsageError
from ozgraph.plan import Plan
from ozgraph.rules.table import registered, registered_freezing
from ozgraph.target import Target

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from models import torch_nets  # noqa: E402  (needs torch)
from ozgraph.backends.torch import to_module  # noqa: E402


def test_import_is_without_torch() -> None:
    code = "import sys, ozgraph, ozgraph.rules.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_names_only_aten_operators_that_exist() -> None:
    named = {
        name.removeprefix("aten.") for name in registered().keys() | registered_freezing().keys() if "aten." in name
    }
    assert named
    assert {name for name in named if not _exists(*name.split("."))} == set()


def _exists(name: str, overload: str | None = None) -> bool:
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and (overload is None or overload in packet.overloads())


def test_weights_have_the_modules_names_and_shared_ones_the_first() -> None:
    module = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    module[2].weight = module[0].weight
    graph = ozgraph.capture(module, (torch.zeros(2, 3, dtype=torch.long),))
    assert {value.name for value in graph.constants} == set(dict(module.named_parameters()))
    weight = graph.origin.weights[graph.values["0.weight"]]
    assert weight.names == ("0.weight", "2.weight")
    assert weight.kind == "parameter" and weight.trainable
    assert graph.values["0.weight"].constant is not None
    assert np.shares_memory(graph.values["0.weight"].constant.numpy(), module[0].weight.detach().numpy())


def test_attributes_are_those_of_the_schema_with_defaults() -> None:
    graph = ozgraph.capture(nn.Conv2d(4, 6, 3, groups=2).eval(), (torch.zeros(1, 4, 8, 8),))
    (op,) = graph.ops
    assert op.operator == "aten.conv2d"
    assert [value.name if value else None for value in op.inputs] == ["input", "weight", "bias"]
    assert dict(op.attributes) == {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 2}
    assert graph.origin.nodes[op].target is torch.ops.aten.conv2d.default


def _snapshot(module: Any) -> Any:
    return [
        (name, part.training, {k: id(v) for k, v in part.__dict__.items()}, [id(p) for p in part._parameters.values()])
        for name, part in module.named_modules()
    ]


@pytest.mark.parametrize("name", ["resnet", "recurrent", "gqa_decoder"])
def test_the_module_is_left_as_it_was(name: str) -> None:
    module, inputs, _ = torch_nets.sample(name)
    module.requires_grad_(True).train()
    next(module.children()).eval()
    module.register_forward_hook(lambda *_: None)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, values = _snapshot(module), copy.deepcopy(module.state_dict())
    to_module(ozgraph.capture(module, tuple(inputs.values())), Plan())  # captures in train mode as well
    assert _snapshot(module) == before
    assert all(torch.equal(value, values[key]) for key, value in module.state_dict().items())
    assert all((parameter.grad == 1).all() and parameter.requires_grad for parameter in module.parameters())
    assert torch.is_grad_enabled()
    module(*inputs.values())


def test_inputs_and_outputs_of_all_kinds() -> None:
    @dataclasses.dataclass
    class Out:
        scores: Any
        rest: Any

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, tokens: Any, *, scale: float, extra: dict[str, Any]) -> Any:
            x = self.embed(tokens) * scale
            return Out(self.head(x), {"sum": (x + extra["x"], x.sum())})

    graph = ozgraph.capture(
        Many(), (torch.zeros(2, 3, dtype=torch.long),), {"scale": 2.0, "extra": {"x": torch.zeros(4)}}
    )
    assert [value.shape for value in graph.inputs] == [(2, 3), (4,)]
    assert [value.shape for value in graph.outputs] == [(2, 3, 3), (2, 3, 4), ()]


def test_axes_that_vary_are_marked_and_freeze() -> None:
    module, inputs, _ = torch_nets.sample("gqa_decoder")
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    graph = ozgraph.capture(module, tuple(inputs.values()), dynamic_shapes=(dims,))
    assert graph.inputs[0].dynamic == (True, True)
    static = ozgraph.analyze(ozgraph.capture(module, tuple(inputs.values())))
    assert [f.atom.size for f in ozgraph.analyze(graph).families] == [f.atom.size for f in static.families]


def test_buffers_that_a_run_writes_belong_to_the_signature() -> None:
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("total", torch.zeros(4))

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            self.total.add_(y.sum(0))
            return y.sum(1)

    graph = ozgraph.capture(Running(), (torch.randn(2, 4),))
    assert graph.values["total"] in graph.inputs
    assert len(graph.outputs) == 2
    assert ozgraph.analyze(graph).families == []


def test_half_precision_weights_can_be_read() -> None:
    module = nn.Linear(4, 3).bfloat16()
    graph = ozgraph.capture(module, (torch.zeros(2, 4, dtype=torch.bfloat16),))
    constant = graph.values["weight"].constant
    assert constant is not None
    np.testing.assert_array_equal(constant.numpy().astype(np.float32), module.weight.detach().float().numpy())


def test_meta_weights_have_no_elements() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    analysis = ozgraph.analyze(ozgraph.capture(module, (torch.zeros(1, 4, device="meta"),)))
    assert [family.atom.size for family in analysis.families] == [6]
    constant = analysis.state.graph.values["0.weight"].constant
    assert constant is not None
    with pytest.raises(ModelError, match=r"0\.weight is on the meta device"):
        constant.numpy()


@pytest.mark.slow
def test_seven_billion_parameters_in_twenty_seconds_and_a_gigabyte(tmp_path: Path) -> None:
    code = """
import resource, time, torch, ozgraph
from models.llama import Llama
with torch.device("meta"):
    module = Llama()
assert sum(parameter.numel() for parameter in module.parameters()) > 6.5e9
begin = time.process_time()
graph = ozgraph.capture(module, (torch.zeros(1, 16, dtype=torch.long, device="meta"),))
families = ozgraph.analyze(graph).families
print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(families))
"""
    path = next(entry for entry in sys.path if entry.endswith("tests"))
    # From an empty folder: the checkout's own must not shadow the installed package.
    program = f"import sys; sys.path.insert(0, {path!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seconds, megabytes, families = map(float, done.stdout.split())
    # The width; in each of 32 layers the hidden width, the heads, and the widths of queries with keys and of values.
    assert families == 1 + 32 * 4
    assert seconds < 20
    assert megabytes < 1024


def test_branches_on_data_freeze_what_they_read_with_a_reason() -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            y = self.first(x).relu()
            z = torch.cond(y.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (y,))
            return self.head(self.second(z).relu())

    analysis = ozgraph.analyze(ozgraph.capture(Chosen(), (torch.randn(2, 4),)))
    assert [family.dim for family in analysis.families] == ["second.weight"]
    assert "what its body does with the axes is not followed" in {row.reason for row in analysis.report.frozen}


def test_checks_at_run_time_hold_nothing_back() -> None:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Any) -> Any:
            y = self.first(x).relu()
            torch._assert_async((y >= 0).all())
            return self.head(y)

    analysis = ozgraph.analyze(ozgraph.capture(Checked(), (torch.randn(2, 4),)))
    assert not analysis.state.unknown
    assert "_assert_async" not in {op.type for op in analysis.state.graph.ops}


def test_where_export_fails_torch_fx_follows() -> None:
    class Switched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
            self.register_buffer("on", torch.tensor(1.0))

        def forward(self, x: Any) -> Any:
            return self.head(self.layer(x).relu()) if self.on > 0 else x

    module = Switched()
    with pytest.raises(Exception, match="data-dependent"):
        torch.export.export(module, (torch.randn(2, 4),), strict=False)
    graph = ozgraph.capture(module, (torch.randn(2, 4),))
    assert [family.atom.size for family in ozgraph.analyze(graph).families] == [6]
    assert {name for name in graph.values if "." in name} == set(dict(module.named_parameters()))


# -- bad input -------------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return self.layer(x)
        return x


def test_control_flow_on_data_names_the_line() -> None:
    with pytest.raises(ModelError, match=r"test_capture\.py:\d+: if x\.sum\(\) > 0: depends on the data") as caught:
        ozgraph.capture(Branching(), (torch.randn(2, 4),))
    assert "torch.where or torch.cond" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_python_that_cannot_be_followed_names_the_line() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.layer(torch.from_numpy(np.tanh(x.detach().numpy())))

    module, seen = Foreign(), torch.randn(2, 4)
    with pytest.raises(ModelError, match=r"does not follow it at .*test_capture\.py:\d+: return self\.layer"):
        ozgraph.capture(module, (seen,))


def test_a_module_that_runs_on_elements_alone_is_not_said_to_refuse_its_inputs() -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Any) -> Any:
            self.calls += 1
            self.layer = self.layer.to(x.dtype)
            return self.layer(x.mul_(2)) + torch.from_numpy(x.numpy()[:, :1])

    module, x = Casting(), torch.ones(2, 4)
    with pytest.raises(ModelError, match=r"torch\.export does not follow it at"):
        ozgraph.capture(module, (x,))
    assert float(module.calls) == 0 and float(x.max()) == 1, "what it writes to is a copy"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), r"Linear\.forward does not take these inputs"),
        ((torch.zeros(2, 5),), r"Linear does not run on these inputs: .*; give inputs that it accepts"),
        ((torch.zeros(2, 4), 3), r"Linear\.forward does not take these inputs"),
    ],
)
def test_inputs_that_do_not_fit(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ozgraph.capture(nn.Linear(4, 3), args)


def test_scripted_and_traced_modules_are_refused() -> None:
    x = torch.zeros(2, 4)
    with pytest.warns() as _:
        gone = [torch.jit.script(nn.Linear(4, 4)), torch.jit.trace(nn.Linear(4, 4), (x,))]
    for module in gone:
        with pytest.raises(UsageError, match="its Python is gone; give the module that it was made from"):
            ozgraph.capture(module, (x,))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot capture Linear: it is no torch\.nn\.Module"):
        ozgraph.capture(nn.Linear, (torch.zeros(2, 4),))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_modules_are_unwrapped(wrap: Any) -> None:
    graph = ozgraph.capture(wrap(nn.Linear(4, 3)), (torch.zeros(2, 4),))
    assert {value.name for value in graph.constants} == {"weight", "bias"}


def test_a_distributed_module_is_unwrapped(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        module = nn.parallel.DistributedDataParallel(nn.Linear(4, 3))
        graph = ozgraph.capture(module, (torch.zeros(2, 4),))
    finally:
        torch.distributed.destroy_process_group()
    assert {value.name for value in graph.constants} == {"weight", "bias"}


def test_modules_compiled_in_part_or_in_place() -> None:
    module = nn.Sequential(torch.compile(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2))
    module[2].compile()
    compiled = module[2]._compiled_call_impl
    graph = ozgraph.capture(module, (torch.zeros(2, 4),))
    assert {value.name for value in graph.constants} == set(dict(module.named_parameters()))
    assert module[2]._compiled_call_impl is compiled
    assert [family.atom.size for family in ozgraph.analyze(graph).families] == [6]


class Bounded(nn.Module):
    """Takes another way from a thousand samples on, as kernels of CUDA do from 65536 on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        y = self.second(self.first(x).relu())
        return y + 1 if x.shape[0] > 1000 else y


def test_a_size_without_a_bound_gets_the_one_that_the_module_has() -> None:
    captured = ozgraph.capture(Bounded(), (torch.randn(3, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    small = ozgraph.prune(captured, target=Target(parameters=0.3)).to_module()
    assert small(torch.randn(7, 4)).shape == (7, 3)
    # A size that the module fixes is no bound: whoever said that it varies has to hear of it.
    with pytest.raises(ModelError, match="specialized"):
        ozgraph.capture(Fixed(), (torch.randn(3, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))


class Fixed(nn.Module):
    """Its batch is three."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x: Any) -> Any:
        return self.layer(x).reshape(3, 8) * 2
