"""Rows counted off to one matrix each: experts as torch runs them in one operator, which knows no float64."""

from __future__ import annotations

import pytest

import ozgraph

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from ozgraph.numerics.torch_kernels import IN_DOUBLE, grouped_product  # noqa: E402

if not hasattr(F, "grouped_mm") or not IN_DOUBLE:
    pytest.skip("this torch has no grouped_mm", allow_module_level=True)

ENDS = torch.tensor([3, 3, 8], dtype=torch.int32)
SHAPES = {
    "rows": ((8, 16), (3, 16, 4), ENDS),
    "columns": ((3, 4, 16), (16, 8), ENDS),
    "both": ((4, 8), (8, 12), ENDS),
    "batches": ((3, 4, 16), (3, 16, 8), None),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_words_say_what_torch_computes(shape: str) -> None:
    left, right, ends = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    rows, matrices = torch.randn(left, generator=generator), torch.randn(right, generator=generator)
    torch.testing.assert_close(grouped_product(rows, matrices, ends), F.grouped_mm(rows, matrices, offs=ends))


class Experts(nn.Module):
    """A gated layer of experts behind a router: tokens sorted by expert, then one product for all."""

    def __init__(self, width: int = 16, hidden: int = 24, experts: int = 4) -> None:
        super().__init__()
        self.before = nn.Linear(12, width)
        self.router = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * hidden) / 4)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / 4)
        self.after = nn.Linear(width, 5)

    def product(self, rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
        return F.grouped_mm(rows, matrices, offs=ends)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        chosen = self.router(x).argmax(-1)
        order = chosen.argsort()
        counts = torch.histc(chosen.float(), bins=self.up.shape[0], min=0, max=self.up.shape[0] - 1)
        ends = counts.cumsum(0).to(torch.int32)
        gate, value = self.product(x[order], self.up, ends).chunk(2, -1)
        made = self.product(F.silu(gate) * value, self.down, ends)
        return self.after(made[order.argsort()] + x)


class LibraryExperts(Experts):
    """The same through the operator that transformers puts into exported programs."""

    def product(self, rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
        found: Tensor = torch.ops.transformers.grouped_mm_fallback(rows, matrices, ends)
        return found


@pytest.mark.parametrize("kind", [Experts, LibraryExperts])
def test_experts_become_narrower(kind: type[Experts]) -> None:
    """The width and the hidden width of all experts go, verified in float64; the experts themselves stay."""
    if kind is LibraryExperts:
        moe = pytest.importorskip("transformers.integrations.moe")
        assert moe is not None and hasattr(torch.ops.transformers, "grouped_mm_fallback")
    torch.manual_seed(0)
    module, x = kind().eval(), torch.randn(9, 12)
    if kind is Experts:  # torch.export follows its own operator in half precision alone
        module, x = module.bfloat16(), x.bfloat16()
    captured = ozgraph.capture(module, (x,))
    report = ozgraph.analyze(captured).report
    assert not report.unknown_operators
    assert any("bins" in row.reason for row in report.frozen)  # the experts: they are counted
    result = ozgraph.prune(captured, target=ozgraph.Target(groups=0.5))
    assert result.state.verification is not None and result.state.verification.equal
    smaller = dict(result.to_module().named_parameters())
    up, down = smaller["up"].shape, smaller["down"].shape
    assert up[0] == down[0] == 4 and up[1] == down[2] and up[2] == 2 * down[1]
    assert sum(tensor.numel() for tensor in smaller.values()) < 0.5 * sum(p.numel() for p in module.parameters())
