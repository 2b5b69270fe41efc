"""Which saliency takes what matters least? A pretrained ResNet-20 with half of its MACs gone, before any training.

    python benchmarks/saliency.py --data FOLDER --pretrained FILE [--cache FILE] [--threads 1]

Each saliency chooses through HESSO with a learning rate of zero: scores are averaged over 20 batches of 64 training
images, then the groups decay to zero in one period or in five, with new scores for each. What is left is judged on
1,500 other training images, with batch norm on the batch's own statistics: test images are not looked at. ``one-shot``
is the cut of :func:`ozgraph.prune` by l2 norm.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ozgraph
from ozgraph.groups import Groups
from ozgraph.runtime import HESSO, HESSO_MIX, Mix, Target

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import cifar_data
from cifar_nets import NETS

Batches = Sequence[tuple[Tensor, Tensor]]

TARGET = Target(macs=0.5)
SCORED, BATCH, JUDGED = 20, 64, 1500
PERIOD = 2
"""Steps of a period: the shortest in which a group decays."""

SALIENCIES: Mapping[str, Mapping[Any, float]] = {
    "HESSO's mix": HESSO_MIX.weights,
    **{name: {name: 1.0} for name in ("magnitude", "taylor1", "taylor2", "snip", "coupled")},
    "magnitude, snip": {"magnitude": 0.5, "snip": 0.5},
}


class Judge:
    """What a network does with training images that nothing was scored on."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = cifar_data.normalised(images), labels

    def __call__(self, module: nn.Module) -> tuple[float, float]:
        """Loss, and the share that is right in per cent."""
        with torch.no_grad():
            logits = module.train()(self.images)
        right = (logits.argmax(1) == self.labels).float().mean()
        return float(cross_entropy(logits, self.labels)), 100 * float(right)


def remove(module: nn.Module, groups: Groups, saliency: Mix, periods: int, batches: Batches) -> None:
    """Drive the groups of lowest score to zero in place, and change nothing else."""
    end = SCORED + PERIOD * periods
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
    hesso = HESSO(
        optimizer, groups.bind(module), target=TARGET, steps=end + 1, start=SCORED, end=end, periods=periods,
        saliency=saliency, average=0.9, score_from=SCORED,
    )  # fmt: skip
    for images, labels in batches[: end + 1]:
        optimizer.zero_grad()
        cross_entropy(module(cifar_data.normalised(images)), labels).backward()
        optimizer.step()
    assert hesso.finished


def main() -> None:
    """Print a line for each saliency."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10")
    parser.add_argument("--cache", type=Path, help="file that keeps the decoded images")
    parser.add_argument("--pretrained", type=Path, required=True, help="safetensors file with the weights of ResNet-20")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (images, labels), _ = cifar_data.load(options.data, options.cache)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(5))
    judge = Judge(images[order[:JUDGED]], labels[order[:JUDGED]])
    batches = [(images[rows], labels[rows]) for rows in order[JUDGED:].split(BATCH)]
    weights = load_file(options.pretrained)

    def fresh() -> nn.Module:
        module: nn.Module = NETS["resnet20"]()
        module.load_state_dict(weights, strict=False)
        return module.train()

    example = cifar_data.normalised(images[:2])
    groups = ozgraph.find_groups(fresh(), example)
    print(f"python benchmarks/saliency.py --threads {options.threads}")
    print(f"torch {torch.__version__}, {platform.machine()}; half of the MACs gone, nothing trained")
    print(f"{'saliency':18} {'compared per':12} {'periods':>7} {'loss':>6} {'right, %':>8}")
    sizes = ({0: torch.export.Dim("batch")},)
    cut = ozgraph.prune(ozgraph.capture(fresh(), (example,), dynamic_shapes=sizes), target=TARGET, round_to=1)
    for said, module in (("whole", fresh()), ("one-shot", cut.to_module())):
        print("{:18} {:12} {:>7} {:6.3f} {:8.1f}".format(said, "", "", *judge(module)))
    for name, mix in SALIENCIES.items():
        for per, periods in (("network", 1), ("family", 1), ("family", 5)):
            module = fresh()
            remove(module, groups, Mix(mix, per=per), periods, batches)
            print("{:18} {:12} {:>7} {:6.3f} {:8.1f}".format(name, per, periods, *judge(module)), flush=True)


if __name__ == "__main__":
    main()
