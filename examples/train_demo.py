"""Train the small network behind ``ozgraph demo`` and write it with its test data.

The data are scikit-learn's handwritten digits: 1797 images of 8x8 pixels. The network is small but has what makes
structured pruning hard: residual additions, a depthwise and a grouped convolution, squeeze-and-excitation, a concat.
For half of the training the weakest groups of every family are pulled towards zero, as one slice over all the
parameters that share a channel; the network learns to lean on the others, and removing the weak ones costs little.

    pip install "ozgraph[torch]" scikit-learn
    python examples/train_demo.py --output ozgraph/demo

Takes about five minutes on one core; ``--smoke`` is two epochs on made-up images, to see that everything works. Runs
with the same seed and the same versions give the same weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import remove_optional_bias_from_conv_rule
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 48
INNER = 96
WIDE = 96


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means (Hu et al., 2018)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.excite(gate))


class InvertedResidual(nn.Module):
    """Expand, filter each channel alone, squeeze-and-excite, project, add."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, inner, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inner)
        self.attention = SqueezeExcite(inner, 16)
        self.project = nn.Conv2d(inner, channels, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.expand_norm(self.expand(x)))
        y = F.relu(self.depthwise_norm(self.depthwise(y)))
        return x + self.project_norm(self.project(self.attention(y)))


class Branches(nn.Module):
    """Two views of the input side by side, at half the resolution: a concat."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, out // 2, 1, stride=2, bias=False)
        self.near_norm = nn.BatchNorm2d(out // 2)
        self.far = nn.Conv2d(channels, out // 2, 3, stride=2, padding=1, bias=False)
        self.far_norm = nn.BatchNorm2d(out // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.near_norm(self.near(x)), self.far_norm(self.far(x))], dim=1))


class GroupedResidual(nn.Module):
    """A ResNeXt block: the middle convolution sees its channels in groups."""

    def __init__(self, channels: int, inner: int, groups: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(inner)
        self.grouped = nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False)
        self.grouped_norm = nn.BatchNorm2d(inner)
        self.restore = nn.Conv2d(inner, channels, 1, bias=False)
        self.restore_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.reduce_norm(self.reduce(x)))
        y = F.relu(self.grouped_norm(self.grouped(y)))
        return F.relu(x + self.restore_norm(self.restore(y)))


class Digits(nn.Module):
    """Images [batch, 1, 8, 8] with pixels in 0..1 to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTH, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTH)
        self.block1 = InvertedResidual(WIDTH, INNER)
        self.down = Branches(WIDTH, WIDE)
        self.block2 = GroupedResidual(WIDE, WIDE, groups=4)
        self.head = nn.Linear(WIDE, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(image)))
        x = self.block2(self.down(self.block1(x)))
        return self.head(x.mean(dim=(2, 3)))

    def families(self) -> dict[str, Tensor]:
        """Squared norm of every zero-invariant group, one vector a family.

        Channels that a residual addition or a depthwise convolution ties share a group; in the grouped convolution,
        slot k is the k-th channel of *every* group, so that the groups stay equally wide.
        """
        one, down, two = self.block1, self.down, self.block2

        def energy(layer: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Tensor:
            parameters = [layer.weight, layer.bias] if norm is None else [layer.weight, norm.weight, norm.bias]
            return torch.stack([p.flatten(1).square().sum(1) if p.ndim > 1 else p.square() for p in parameters]).sum(0)

        def across(squares: Tensor) -> Tensor:
            return squares.view(two.grouped.groups, -1).sum(0)

        return {
            "stem": energy(self.stem, self.stem_norm) + energy(one.project, one.project_norm),
            "inner": energy(one.expand, one.expand_norm) + energy(one.depthwise, one.depthwise_norm),
            "squeeze": energy(one.attention.squeeze),
            "wide": torch.cat([energy(down.near, down.near_norm), energy(down.far, down.far_norm)])
            + energy(two.restore, two.restore_norm),
            "reduce": across(energy(two.reduce, two.reduce_norm)),
            "grouped": across(energy(two.grouped, two.grouped_norm)),
        }


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, then test images and labels; pixels in 0..1."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    split = train_test_split(data.images, data.target, test_size=450, random_state=0, stratify=data.target)
    train_x, test_x = (torch.tensor(part / 16, dtype=torch.float32)[:, None] for part in split[:2])
    train_y, test_y = (torch.tensor(part, dtype=torch.int64) for part in split[2:])
    return train_x, train_y, test_x, test_y


def made_up() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels of the same kinds that mean nothing."""
    return torch.rand(64, 1, 8, 8), torch.randint(10, (64,)), torch.rand(32, 1, 8, 8), torch.randint(10, (32,))


def jitter(images: Tensor) -> Tensor:
    """The images a little turned, scaled and shifted, each in its own way."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * 0.35
    scale = 1 + (torch.rand(count) - 0.5) * 0.2
    shift = (torch.rand(count, 2) - 0.5) * 0.35
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2)
    grid = F.affine_grid(torch.cat([turn * scale[:, None, None], shift[:, :, None]], 2), list(images.shape), False)
    return F.grid_sample(images, grid, align_corners=False)


def shrink(model: Digits, share: float, factor: float) -> None:
    """Multiply the weakest ``share`` of the groups of every family by ``factor``, in place."""
    weakest = torch.zeros(())
    for squares in model.families().values():
        weakest = weakest + squares.sort().values[: int(share * len(squares))].sum()
    # A squared norm's gradient is twice the slice itself, and zero elsewhere: a mask without listing slices again.
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(weakest, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= gradient / 2 * (1 - factor)


def train(model: Digits, images: Tensor, labels: Tensor, epochs: int, sparsity: float) -> None:
    """AdamW on cross entropy; after a warm-up the weakest groups of every family are pulled towards zero."""
    batch = 64
    rounds = len(images) // batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * rounds)
    for epoch in range(epochs):
        model.train()
        # Relaxed at the end: the weak groups stay small but not zero, so that there is something left to decide.
        pull = epochs // 4 <= epoch < epochs * 3 // 4
        total = torch.zeros(())
        for index in torch.randperm(len(images))[: rounds * batch].view(-1, batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(jitter(images[index])), labels[index], label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
            if pull:
                shrink(model, sparsity, 0.995)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {float(total) / rounds:.3f}")


def accuracy(model: Digits, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is at their label."""
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def zeroed(model: Digits, share: float) -> Digits:
    """A copy with the weakest ``share`` of the groups of every family at zero."""
    copy = Digits()
    copy.load_state_dict(model.state_dict())
    shrink(copy, share, 0.0)
    return copy


def strip(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` without the exporter's notes on where in the source each node comes from."""
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    model.graph.name = "digits"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    """Train, report what zeroing costs, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("ozgraph/demo"))
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of every family to weaken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="two epochs on made-up images")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    train_x, train_y, test_x, test_y = made_up() if options.smoke else digits()
    model = Digits()
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    train(model, train_x, train_y, 2 if options.smoke else options.epochs, options.sparsity)
    for name, squares in model.families().items():
        print(f"{name}: norms {np.array2string(squares.detach().sqrt().sort().values.numpy(), precision=2)}")
    print(f"test accuracy {accuracy(model, test_x, test_y):.4f}")
    for share in (0.25, 0.3, 0.4, 0.5, 0.6):
        print(f"  with {share:.0%} of every family zeroed: {accuracy(zeroed(model, share), test_x, test_y):.4f}")

    options.output.mkdir(parents=True, exist_ok=True)
    model.eval()
    program = torch.onnx.export(
        model,
        (test_x[:2],),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        dynamo=True,
        # The exporter's optimizer would fold batch norm into the convolutions; many real files still have it.
        optimize=False,
        verbose=False,
    )
    assert program is not None
    fold_constants(program.model)
    rewrite(program.model, [remove_optional_bias_from_conv_rule])
    remove_unused_nodes(program.model)
    strip(program.model_proto, options.output / "digits.onnx")
    pixels = (test_x[:, 0] * 16).round().to(torch.uint8).numpy()
    np.savez_compressed(options.output / "digits.npz", images=pixels, labels=test_y.to(torch.uint8).numpy())


if __name__ == "__main__":
    main()
