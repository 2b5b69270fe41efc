"""The CIFAR-10 benchmark: runs in pieces equal runs in one, rows end in lines, and the page is what the lines say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "examples")]

from cifar_report import page  # noqa: E402
from cifar_rows import ROWS, TABLES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "cifar10.jsonl"


def committed() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def line(row: str, seed: int, accuracy: float) -> dict[str, Any]:
    sizes = {"parameters": 50, "macs": 25, "parameters_whole": 100, "macs_whole": 100}
    where = {"device": "a CPU", "threads": 1, "torch": "2"}
    return {"row": row, "seed": seed, "accuracy": accuracy, "seconds": 60.0} | sizes | where


def test_the_committed_page_is_what_its_lines_give() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == page(committed())


def test_committed_lines_are_of_declared_rows_with_their_settings() -> None:
    for found in committed():
        assert found["settings"] == json.loads(json.dumps(ROWS[found["row"]].settings)), found["row"]
    runs = [(found["row"], found["seed"]) for found in committed()]
    assert len(runs) == len(set(runs))


def test_a_page_has_means_seeds_aims_and_the_command_for_the_rest() -> None:
    text = page([line("resnet18-hesso", 1, 93.0), line("resnet18-hesso", 0, 92.0)])
    assert "| 25.0% | 50.0% | **92.50** (92.00, 93.00) | 0, 1 | 1 |" in text
    assert "`resnet18-hesso`: the aim, a mean above 92.81 %, is missed with 2 of 3 seeds." in text
    assert "--row resnet18-hesso \\\n        --seed 2 --device cuda" in text
    assert "--row resnet18-dense resnet18-thin \\\n        --seed 0 1 2 --device cuda" in text


def test_a_page_says_when_groups_were_final() -> None:
    runs = [(0, 250), (2, 400)]
    lines = [line("vgg16-scratch-one-cycle", seed, 93.0) | {"steps": 1000, "final_at": at} for seed, at in runs]
    assert "`vgg16-scratch-one-cycle`: groups were final after 25%, 40% of the run (seeds 0, 2)." in page(lines)
    assert "final after" not in page([line("vgg16-scratch-one-cycle", 0, 93.0)])


def test_pruned_rows_stand_beside_a_dense_and_a_thin_one_on_the_same_budget() -> None:
    for table in TABLES:
        methods = {row.method: row for row in table.rows}
        assert {"dense", "thin", "hesso"} <= methods.keys()
        assert len({(row.net, row.batch, row.weight_decay, row.seeds) for row in table.rows}) == 1
        assert len({tuple(row.removes.items()) for row in table.rows if row.method != "dense"}) == 1
        assert len({row.epochs for row in table.rows if row.method != "thin"}) == 1


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "cifar10.py"), "--device", "cpu", "--threads", "1"]
    command += ["--results", str(folder / "lines.jsonl"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_dry_run_leaves_a_line_for_each_row_and_does_not_run_it_again(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rows = ("resnet20-hesso", "resnet20-thin")
    arguments = ("--smoke", "--checkpoint", "runs", "--row", *rows)
    first = started(tmp_path, *arguments, "--minutes", "0")
    assert first.returncode == 3 and "stopped after step 1 of 32" in first.stdout, first.stderr
    assert not (tmp_path / "lines.jsonl").exists()
    second = started(tmp_path, *arguments)
    assert second.returncode == 0 and "going on from step 1 of 32" in second.stdout, second.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(rows)
    for found in lines:
        assert 0.4 * found["macs_whole"] < found["macs"] <= 0.5 * found["macs_whole"]
        assert 0 <= found["accuracy"] <= 100 and found["steps"] == 32
    third = started(tmp_path, *arguments)
    assert third.returncode == 0 and third.stdout.count("measured before") == 2


@pytest.mark.slow
def test_runs_go_side_by_side_and_none_begins_too_late(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rows = ("resnet20-one-shot", "resnet20-dense")
    arguments = ("--smoke", "--row", *rows, "--seed", "0", "1", "--jobs", "2")
    late = started(tmp_path, *arguments, "--minutes", "0")
    assert late.returncode == 3 and not (tmp_path / "lines.jsonl").exists(), late.stderr
    done = started(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert sorted((line["row"], line["seed"]) for line in lines) == [(row, n) for row in sorted(rows) for n in (0, 1)]


def test_a_dry_run_does_not_go_into_the_committed_results(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, str(ROOT / "benchmarks" / "cifar10.py"), "--smoke", "--row", "resnet20-dense"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--results" in done.stderr


class Small:
    """Twelve steps of a small network with HESSO."""

    STEPS = 12

    def __init__(self, checkpoint: Path | None, *, cut: bool = False) -> None:
        import cifar_data
        import torch
        from cifar_training import Batches, Checkpoint, Run

        import ozgraph
        from ozgraph.runtime import HESSO, Target

        torch.set_num_threads(1)
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 6, 3, 4), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten()]
        module = torch.nn.Sequential(*layers, torch.nn.Linear(384, 10))
        images, labels = cifar_data.made(40, seed=0)
        example, sizes = cifar_data.normalised(images[:2]), ({0: torch.export.Dim("batch")},)
        groups = ozgraph.find_groups(module, example, dynamic_shapes=sizes)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=self.STEPS)
        pruner = HESSO(
            optimizer,
            groups,
            target=Target(groups=0.5),
            steps=self.STEPS,
            start=2,
            end=8,
            periods=2,
            compactor=ozgraph.Compactor(module, example, dynamic_shapes=sizes) if cut else None,
        )
        self.batches = Batches(images, labels, 8, seed=3)
        self.run = Run(module, optimizer, scheduler, pruner)
        self.checkpoint = Checkpoint(checkpoint, self.run, {"seed": 3})

    def go(self, minutes: float) -> float | None:
        from cifar_training import train

        return train(self.run, self.batches, self.STEPS, self.checkpoint, minutes=minutes)


@pytest.mark.parametrize("cut", [False, True])
def test_a_run_in_pieces_of_one_step_ends_with_the_weights_of_an_uninterrupted_one(cut: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    whole = Small(None, cut=cut)
    assert whole.go(float("inf")) is not None and whole.run.pruner.finished
    assert len(whole.run.module[0].weight) == (3 if cut else 6)
    pieces = 0
    while True:
        part = Small(tmp_path / "run.pt", cut=cut)
        pieces += 1
        if part.go(0) is not None:
            break
    assert pieces == Small.STEPS
    for name, wanted in whole.run.module.state_dict().items():
        assert torch.equal(part.run.module.state_dict()[name], wanted), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    Small(tmp_path / "run.pt").go(0)
    other = Small(tmp_path / "run.pt")
    other.checkpoint.settings["seed"] = 4
    with pytest.raises(SystemExit, match="other settings"):
        other.go(0)


@pytest.mark.parametrize("net", ["resnet18", "resnet20", "resnet56", "vgg16_bn"])
def test_networks_come_in_any_width(net: str) -> None:
    torch = pytest.importorskip("torch")
    from cifar_nets import NETS

    for width in (0.2, 0.71, 1.0):
        assert NETS[net](width=width).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
