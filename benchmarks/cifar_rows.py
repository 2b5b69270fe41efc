"""The rows of ``cifar10.py`` as data: tables of networks, methods and budgets, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

METHODS = {
    "dense": "the whole network",
    "thin": "all layers narrower by one factor, to the same MACs, from random weights",
    "one-shot": "the groups of smallest l2 norm cut before training, then the small network trained",
    "hesso": "HESSO",
    "cric": "HESSO-CRIC",
    "ocspruner": "cut once the sub-network to keep has settled, as published (OCSPruner)",
    "one-cycle": "the same, but what goes decays to exactly zero before the cut",
}


@dataclass(frozen=True)
class Row:
    """One way to train one network.

    Attributes:
        name: what the command line calls it.
        method: one of ``METHODS``.
        rate: highest learning rate, of a one-cycle schedule that rises for a tenth of the run.
        removes: what goes, as :class:`ozgraph.Target` takes it; empty for the dense network.
        same_macs_as: of thin networks: the row whose measured MACs it gets, seed by seed; else the target's.
        pretrained: starts from the weights that ``--pretrained`` names.
        options: further arguments of the pruner; ``per`` and ``weights`` are those of its :class:`ozgraph.runtime.Mix`.
        aim: last-epoch accuracy in per cent that the mean over the seeds should pass.
    """

    name: str
    net: str
    method: str
    epochs: int
    rate: float
    batch: int = 128
    weight_decay: float = 5e-4
    removes: Mapping[str, float] = field(default_factory=dict)
    same_macs_as: str = ""
    pretrained: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    aim: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on besides the seed."""
        said = asdict(self)
        return {key: said[key] for key in said if key not in ("name", "seeds", "aim")}

    def short(self) -> Row:
        """The same for a dry run on made-up images."""
        looks = {"every": 2, "start": 0}
        steps = {
            "hesso": {"periods": 2},
            "cric": {"probes": [], "cycle_steps": 3, "cycles": 2},
            "ocspruner": looks,
            "one-cycle": looks,
        }
        return replace(self, epochs=2, batch=16, options=steps.get(self.method, {}))


@dataclass(frozen=True)
class Table:
    """Rows that are compared with each other."""

    title: str
    about: str
    device: str
    rows: tuple[Row, ...]


def _family(net: str, *, hesso: Row, thin_rate: float, thin_epochs: int | None = None) -> tuple[Row, ...]:
    """A pruned row, then the dense and the thin network that are trained alike."""
    return (
        hesso,
        replace(hesso, name=f"{net}-dense", method="dense", removes={}, options={}, aim=None),
        replace(
            hesso,
            name=f"{net}-thin",
            method="thin",
            rate=thin_rate,
            epochs=thin_epochs or hesso.epochs,
            same_macs_as=hesso.name,
            pretrained=False,
            options={},
            aim=None,
        ),
    )


_RESNET18 = Row("resnet18-hesso", "resnet18", "hesso", 100, 0.1, removes={"parameters": 0.92}, aim=92.81)
_VGG16 = Row("vgg16-hesso", "vgg16_bn", "hesso", 200, 0.1, removes={"macs": 0.74}, aim=93.3)
_RESNET56 = Row("resnet56-hesso", "resnet56", "hesso", 100, 0.05, removes={"macs": 0.5}, pretrained=True, aim=93.8)


def _pretrained_resnet20(prefix: str, epochs: int, batch: int, rate: float, thin_rate: float) -> tuple[Row, ...]:
    half = {"macs": 0.5}
    hesso = Row(
        f"{prefix}-hesso",
        "resnet20",
        "hesso",
        epochs,
        rate,
        batch,
        1e-4,
        half,
        pretrained=True,
        options={"start": 0.05, "end": 0.4},
        seeds=(0, 1),
    )
    cric = {"start": 0.05, "cycle_steps": 0.015, "cycles": 8, "leave_steps": 0.15}
    alike = {"options": {}}
    return (
        hesso,
        replace(hesso, name=f"{prefix}-one-shot", method="one-shot", **alike),
        replace(hesso, name=f"{prefix}-dense", method="dense", removes={}, **alike),
        replace(hesso, name=f"{prefix}-cric", method="cric", options=cric),
        replace(hesso, name=f"{prefix}-hesso-family", options={**hesso.options, "per": "family"}),
        replace(hesso, name=f"{prefix}-cric-family", method="cric", options={**cric, "per": "family"}),
        replace(hesso, name=f"{prefix}-thin", method="thin", rate=thin_rate, pretrained=False, **alike),
    )


_RESNET20 = _pretrained_resnet20("resnet20", 8, 128, 0.05, 0.1)
_BY_LOSS = {"weights": {"magnitude": 0.5, "snip": 0.5}, "per": "family"}
_HESSO_EARLY = {"start": 0.01, "end": 0.15, "average": 0.8, "score_from": 20, **_BY_LOSS}
_CRIC_EARLY = {"start": 0.01, "cycle_steps": 0.01, "cycles": 6, "leave_steps": 0.05, **_BY_LOSS}
_EARLY = (
    replace(_RESNET20[0], name="resnet20-hesso-early", options=_HESSO_EARLY),
    replace(_RESNET20[0], name="resnet20-cric-early", method="cric", options=_CRIC_EARLY),
)


def _one_cycle(prefix: str, net: str, epochs: int, removed: float, first: float, **more: Any) -> tuple[Row, ...]:
    """Looks every epoch from a share of the run on; the published method, ours and HESSO, dense and thin."""
    looks = {"every": 1 / epochs, "start": first}
    published = Row(f"{prefix}-ocspruner", net, "ocspruner", epochs, 0.1, removes={"macs": removed}, options=looks)
    published = replace(published, **{key: more[key] for key in more if key != "aim"})
    hesso = replace(published, name=f"{prefix}-hesso", method="hesso", options={})
    return (
        published,
        replace(published, name=f"{prefix}-one-cycle", method="one-cycle", aim=more.get("aim")),
        replace(
            published,
            name=f"{prefix}-one-cycle-family",
            method="one-cycle",
            options={**looks, "per": "family"},
            aim=more.get("aim"),
        ),
        *_family(prefix, hesso=hesso, thin_rate=0.1),
    )


TABLES = (
    Table(
        "ResNet-18 from scratch, 92 % of the parameters removed",
        "100 epochs. The published figure of HESSO is 92.81 % (dense 93.02 %).",
        "cuda",
        _family("resnet18", hesso=_RESNET18, thin_rate=0.1),
    ),
    Table(
        "VGG16-BN from scratch, 74 % of the MACs removed",
        "200 epochs. OTOv2 is published with 93.27 % at 26.6 % of the MACs.",
        "cuda",
        _family("vgg16", hesso=_VGG16, thin_rate=0.1),
    ),
    Table(
        "ResNet-56 from pretrained weights, half of the MACs removed",
        "100 epochs from 93.39 %. Torch-Pruning is published with 93.77 % at 47 % of the MACs, best epoch.",
        "cuda",
        _family("resnet56", hesso=_RESNET56, thin_rate=0.1, thin_epochs=200),
    ),
    Table(
        "ResNet-20 from pretrained weights, half of the MACs removed, one epoch",
        "A budget that one core finishes in minutes: one epoch in batches of 32, from 91.73 %. It shows what the "
        "methods lose when there is next to no time to make up for it. HESSO's published mix compares scores over the "
        "whole network, where those of the last layers are low: to reach half of the MACs it gives most of them up, "
        "though they are cheap, and keeps fewer parameters than any other row. CRIC corrects what it takes by what the "
        "loss says; compared per family, scores do not mislead in the first place.",
        "cpu",
        _pretrained_resnet20("resnet20-short", 1, 32, 0.01, 0.05),
    ),
    Table(
        "ResNet-20 from pretrained weights, half of the MACs removed, eight epochs",
        "From 91.73 %. As published, HESSO's mix takes the last layers, as above, and eight epochs do not make up for "
        "it; CRIC, which starts from the same scores, corrects most of it. Per family, what is left to do is to choose "
        "better and sooner: `hesso-early` has the small network before a sixth of the run is over, as one-shot has it "
        "from the start, and scores by two that keep the loss on training images low right after the cut "
        "([one run](../benchmarks/results/saliency_cpu.txt) of `python benchmarks/saliency.py`). With these scores "
        "CRIC has little left to correct, and ends a little below: what it trains in its cycles is undone.",
        "cpu",
        (*(row for row in _RESNET20 if row.name != "resnet20-cric-family"), *_EARLY),
    ),
    Table(
        "ResNet-56 from scratch, half of the MACs removed in one cycle",
        "200 epochs. OCSPruner is published with 93.81 % in the last epoch, three seeds, under another budget: its "
        "[logs](https://github.com/ghimiredhikura/OCSPruner) are of 300 epochs, with a rate that falls in steps, and "
        "of a ResNet-56 whose shortcuts are convolutions. `one-cycle-family` "
        "compares scores per family.",
        "cuda",
        _one_cycle("resnet56-scratch", "resnet56", 200, 0.5, 0.025, aim=93.81),
    ),
    Table(
        "VGG16-BN from scratch, 79 % of the MACs removed in one cycle",
        "200 epochs. OCSPruner is published with 93.76 % at 21.2 % of the MACs, after 300 epochs.",
        "cuda",
        _one_cycle("vgg16-scratch", "vgg16_bn", 200, 0.79, 0.025, aim=93.76),
    ),
    Table(
        "ResNet-20 from scratch, half of the MACs removed in one cycle",
        "Ten epochs. The indicator needs five looks, an epoch apart, so that it speaks for the first time where the "
        "latest bound lies, after four epochs. HESSO takes its groups in ten steps, by a quarter of the run; what it "
        "takes lies again where most of the parameters are. Scores per family end a little "
        "higher on average, by less than the two seeds differ.",
        "cpu",
        _one_cycle("resnet20-scratch", "resnet20", 10, 0.5, 0.0, seeds=(0, 1)),
    ),
)

ROWS = {row.name: row for table in TABLES for row in table.rows}
