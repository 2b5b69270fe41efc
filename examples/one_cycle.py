"""Train a CIFAR-10 network that becomes smaller on the way, once the sub-network to keep has settled.

    pip install "ozgraph[torch,onnxruntime]" pillow
    python examples/one_cycle.py --data FOLDER [--model resnet56] [--epochs 200] [--target 0.5] [--finish decay]

FOLDER holds CIFAR-10 as ``cifar_data.py`` says. Every epoch the pruner looks which channels it would keep; when these
stop changing, the others decay to exactly zero, the network is cut, and the rest of the run trains the small one, with
the optimizer's momentum and a moving average of the weights cut along. ``--finish cut`` is the published method, which
zeroes them at once. With ``--checkpoint FILE`` the run is saved every few minutes and goes on from there, whether the
cut has been or not; ``--minutes`` ends it early. ``--smoke`` is a short run on made-up images, to see that everything
works.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cifar_data
import small_file
import torch
from cifar_nets import NETS
from cifar_training import Batches, Checkpoint, Run, accuracy, train
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ozgraph
from ozgraph.runtime import OneCycle, ProgressLine, Target


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10")
    parser.add_argument("--model", choices=tuple(NETS), default="resnet56")
    parser.add_argument("--finish", choices=("decay", "cut"), default="decay")
    parser.add_argument("--target", type=float, default=0.5, help="share of the MACs to remove (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.1, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint", type=Path, help="file that the run is saved to and resumed from")
    parser.add_argument("--history", type=Path, help="file for what every look saw, as JSON")
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
    batches = Batches(images, labels, options.batch, options.seed)
    per_epoch, steps = batches.per_epoch, batches.per_epoch * options.epochs

    module = NETS[options.model]().to(device, memory_format=torch.channels_last).train()
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    example, sizes = cifar_data.normalised(images[:2]), ({0: torch.export.Dim("batch")},)
    optimizer = torch.optim.SGD(module.parameters(), lr=options.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps, pct_start=0.1)
    pruner = OneCycle(
        optimizer,
        ozgraph.find_groups(module, example, dynamic_shapes=sizes),
        target=Target(macs=options.target),
        steps=steps,
        every=per_epoch // 8 if options.smoke else per_epoch,
        start=0 if options.smoke else 5 * per_epoch,
        finish=options.finish,
        compactor=ozgraph.Compactor(module, example, dynamic_shapes=sizes, into="either"),
        follow=[average],
    )

    run = Run(module, optimizer, scheduler, pruner, average)
    settings = {name: vars(options)[name] for name in ("model", "finish", "target", "epochs", "batch", "rate", "seed")}
    checkpoint = Checkpoint(options.checkpoint, run, settings)
    with ProgressLine(pruner, steps) as line:
        seconds = train(run, batches, steps, checkpoint, minutes=options.minutes, watch=line.update)
    if seconds is None:
        return
    if options.history:
        options.history.write_text(json.dumps(pruner.history, indent=1), encoding="utf-8")
    for made in pruner.compaction.cuts if pruner.compaction else ():
        print(f"cut after step {made.step} ({pruner.stopped_by}), outputs differ by {made.error:.1e}")
    print(
        f"test accuracy {accuracy(pruner.module, test_images, test_labels):.2f} %, "
        f"of the average {accuracy(average, test_images, test_labels):.2f} %"
    )
    held_out = cifar_data.normalised(test_images[:4]).cpu()
    small_file.write(pruner.module, cifar_data.normalised(images[:4]).cpu(), options.output, held_out)


if __name__ == "__main__":
    main()
