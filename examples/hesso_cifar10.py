"""Train a CIFAR-10 network once with HESSO and write it as a small ONNX file.

    pip install "ozgraph[torch,onnxruntime]" pillow
    python examples/hesso_cifar10.py --data FOLDER [--model resnet18] [--epochs 100] [--target 0.8]

FOLDER holds CIFAR-10 as torchvision keeps it (``cifar-10-batches-py``) or as WebP archives (see ``cifar_data.py``). All
of it lies on the device; on CUDA the network runs in bfloat16 and channels last. With ``--checkpoint FILE`` the run is
saved every few minutes and goes on from there when started again, and ``--minutes`` ends it early: so a long run can
be done in pieces. ``--smoke`` is two short epochs on made-up images, to see that everything works.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cifar_data
import small_file
import torch
from cifar_nets import NETS
from cifar_training import Batches, Checkpoint, Run, accuracy, train

import ozgraph
from ozgraph.runtime import HESSO, HESSOCRIC, ProgressLine, Target


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10")
    parser.add_argument("--model", choices=tuple(NETS), default="resnet18")
    parser.add_argument("--method", choices=("hesso", "cric"), default="hesso")
    parser.add_argument("--target", type=float, default=0.8, help="share of the MACs to remove (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint", type=Path, help="file that the run is saved to and resumed from")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="save and stop after so long")
    parser.add_argument("--output", type=Path, help="default: MODEL.onnx")
    parser.add_argument("--smoke", action="store_true", help="two epochs of 16 steps on made-up images")
    options = parser.parse_args()
    if not options.smoke and options.data is None:
        parser.error("--data is needed: a folder with CIFAR-10, or --smoke for a dry run")
    if options.smoke:
        options.epochs, options.batch = 2, 16
    options.output = options.output or Path(f"{options.model}.onnx")
    return options


def main() -> None:
    """Train (or go on), report, write."""
    options = arguments()
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    training, test = cifar_data.load(None if options.smoke else options.data)
    if options.smoke:
        training, test = tuple(part[:256] for part in training), tuple(part[:100] for part in test)
    images, labels, test_images, test_labels = (part.to(device) for part in (*training, *test))

    module = NETS[options.model]().to(device, memory_format=torch.channels_last).train()
    groups = ozgraph.find_groups(module, cifar_data.normalised(images[:2]))
    optimizer = torch.optim.SGD(module.parameters(), lr=options.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = Batches(images, labels, options.batch, options.seed)
    steps = batches.per_epoch * options.epochs
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps, pct_start=0.1)
    target = Target(macs=options.target)
    # A dry run has few steps, so its periods and cycles are short.
    pruner: HESSO | HESSOCRIC
    if options.method == "hesso":
        pruner = HESSO(optimizer, groups, target=target, steps=steps, periods=2 if options.smoke else 10)
    elif options.smoke:
        pruner = HESSOCRIC(optimizer, groups, target=target, steps=steps, probes=(), cycle_steps=3, cycles=3)
    else:
        pruner = HESSOCRIC(optimizer, groups, target=target, steps=steps)

    run = Run(module, optimizer, scheduler, pruner)
    settings = {name: vars(options)[name] for name in ("model", "method", "target", "epochs", "batch", "rate", "seed")}
    checkpoint = Checkpoint(options.checkpoint, run, settings)
    with ProgressLine(pruner, steps) as line:
        seconds = train(run, batches, steps, checkpoint, minutes=options.minutes, watch=line.update)
    if seconds is None:
        return
    print(f"test accuracy {accuracy(module, test_images, test_labels):.2f} %")
    example, held_out = (cifar_data.normalised(part[:4]).cpu() for part in (images, test_images))
    small_file.write(module, example, options.output, held_out)


if __name__ == "__main__":
    main()
