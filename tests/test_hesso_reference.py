"""Two runs of the public HESSO implementation, reproduced: every event, every loss, every final weight."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402
from training.loops import groups_of  # noqa: E402
from training.nets import NETS  # noqa: E402

from ozgraph.runtime import HESSO, Target  # noqa: E402
from ozgraph.runtime.scoring import as_scores  # noqa: E402
from ozgraph.runtime.selection import Mask  # noqa: E402

DATA = Path(os.environ.get("OZGRAPH_DATA", "")) / "hesso-reference"


class AsPublished(HESSO):
    """The public code takes the lowest groups, those that are gone among them, sorts the new ones by number, and then
    keeps as many as are due: later periods may take early layers rather than the lowest scores."""  # fmt: skip

    def redundant(self, scores: Any, period: int) -> Mask:
        gone = int(self.gone.sum())
        due = int(self.schedule.due(period, self.selection.goal)) - gone
        lowest = np.argsort(as_scores(scores), kind="stable")[: gone + due]
        mask = np.zeros_like(self.gone)
        mask[np.setdiff1d(lowest, np.flatnonzero(self.gone))[:due]] = True
        return mask


@pytest.mark.skipif(not DATA.is_dir(), reason="set OZGRAPH_DATA to the folder that holds hesso-reference")
@pytest.mark.parametrize("name", NETS)
def test_reference_run_is_reproduced(name: str) -> None:
    data, record = np.load(DATA / f"hesso_{name}.npz"), json.loads((DATA / f"hesso_{name}.json").read_text())
    config = record["config"]
    module = NETS[name]()
    start = {key.removeprefix("init/"): torch.from_numpy(data[key]) for key in data if key.startswith("init/")}
    module.load_state_dict(start)
    groups = groups_of(module, torch.from_numpy(data["x"][0]))
    optimizer = torch.optim.SGD(
        module.parameters(), lr=config["lr"], momentum=config["first_momentum"], weight_decay=config["weight_decay"]
    )
    begin = config["start_pruning_step"]
    pruner = AsPublished(
        optimizer,
        groups,
        target=Target(groups=config["target_group_sparsity"]),
        steps=len(data["x"]),
        start=begin,
        end=begin + config["pruning_steps"],
        periods=config["pruning_periods"],
    )
    # The reference lists a family by its parameters; ours are matched by the first weight of each.
    prunable = [row for row in record["groups"] if row["prunable"]]
    spans = {family.zeroed[0].tensor: span for family, span in pruner.layout.spans()}
    order = [next(span for name_, span in spans.items() if name_ in row["names"]) for row in prunable]
    assert len(order) == len(spans) == len(prunable)
    events = {event["after_step"]: event["sets"] for event in record["events"]}
    module.train()
    for step in range(len(data["x"])):
        loss = F.cross_entropy(module(torch.from_numpy(data["x"][step])), torch.from_numpy(data["y"][step]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert abs(loss.item() - data["loss"][step]) < 1e-4, step
        if step + 1 in events:
            found = [
                {
                    "pruned": np.flatnonzero(pruner.gone[s]).tolist(),
                    "active": np.flatnonzero(pruner.decaying[s]).tolist(),
                }
                for s in order
            ]
            assert found == events[step + 1], step
    for key, tensor in module.state_dict().items():
        assert np.abs(tensor.numpy() - data[f"final/{key}"]).max() < 1e-4, key
    final = {
        ",".join(row["names"]): np.flatnonzero(pruner.gone[s]).tolist() for row, s in zip(prunable, order, strict=True)
    }
    assert final == {key: sorted(slots) for key, slots in record["pruned"].items()}
    assert pruner.finished
