"""On two processes the same groups go as on one: data-parallel, and with parameters that lie in parts on each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or sys.platform == "win32":
    pytest.skip("torch was built without gloo", allow_module_level=True)

from training import two_processes as two  # noqa: E402
from training.loops import groups_of, net  # noqa: E402
from training.nets import images  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained together, and each has written what it ended with."""
    made = tmp_path_factory.mktemp("processes")
    for name, kind in two.NETS.items():
        if name != "adapted":
            # Found without any weights, and bound to what each process makes.
            groups_of(net(0, kind).to("meta"), images()[0].to("meta")).save(made / f"{name}.json")
    parts = two.made("uneven", "hesso", None, made)
    for taken in two.run(*parts, 0):
        if taken == two.SAVED:
            two.save(made / "saved by one", *parts)
            break
    command = [sys.executable, "-m", "training.two_processes", str(made)]
    both = [
        subprocess.Popen([*command, str(rank)], cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True)
        for rank in range(two.WORLD)
    ]
    said = [process.communicate(timeout=600)[1] for process in both]
    assert all(process.returncode == 0 for process in both), "\n".join(text[-3000:] for text in said)
    return made


@pytest.fixture(scope="module")
def ended(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(two.WORLD)]


def close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("name", "method", "wrapper"), two.RUNS)
def test_every_process_takes_the_same_groups(name: str, method: str, wrapper: str, ended: list[dict[str, Any]]) -> None:
    one, other = (ends[f"{name} {method} {wrapper}"] for ends in ended)
    assert torch.equal(one["gone"], other["gone"])
    assert one["finished"] and one["gone"][-1].any() and not one["gone"][-1].all()
    assert one["norm"] == other["norm"] == 0.0
    for key, tensor in one["weights"].items():
        assert torch.equal(tensor, other["weights"][key]), key


@pytest.mark.parametrize(("name", "method", "wrapper"), [run for run in two.RUNS if run[0] != "plain"])
def test_two_processes_end_as_one_does_on_the_joint_batch(
    name: str, method: str, wrapper: str, folder: Path, ended: list[dict[str, Any]]
) -> None:
    module, optimizer, pruner = two.made(name, method, None, folder)
    gone = [torch.from_numpy(pruner.gone | pruner.decaying) for _ in two.run(module, optimizer, pruner, 0)]
    found = ended[0][f"{name} {method} {wrapper}"]
    assert torch.equal(found["gone"], torch.stack(gone))
    close(found["weights"], two.whole(module))


def test_what_two_processes_saved_goes_on_in_one(folder: Path, ended: list[dict[str, Any]]) -> None:
    module, optimizer, pruner = two.made("uneven", "hesso", None, folder)
    two.load(folder / "saved by two", module, optimizer, pruner)
    assert pruner.step == two.SAVED and pruner.decaying.any()
    list(two.run(module, optimizer, pruner, two.SAVED))
    found = ended[0]["uneven hesso fsdp"]
    assert torch.equal(found["gone"][-1], torch.from_numpy(pruner.gone))
    close(found["weights"], two.whole(module))


@pytest.mark.parametrize("wrapper", two.WRAPPERS)
def test_what_one_process_saved_goes_on_in_two(wrapper: str, folder: Path, ended: list[dict[str, Any]]) -> None:
    module, optimizer, pruner = two.made("uneven", "hesso", None, folder)
    list(two.run(module, optimizer, pruner, 0))
    for ends in ended:
        found = ends[f"going on {wrapper}"]
        assert torch.equal(found["gone"], torch.from_numpy(pruner.gone))
        close(found["weights"], two.whole(module))


def test_the_model_that_is_gone_back_to_is_saved_as_it_is_sharded(folder: Path, ended: list[dict[str, Any]]) -> None:
    parts = two.made("uneven", "cric", None, folder)
    for taken in two.run(*parts, 0):
        if taken == two.PROBED:
            copied = parts[2].state_dict()["snapshot"]["tensors"]
            break
    for ends in ended:
        close(ends["snapshot"], copied)


def test_processes_that_would_not_prune_alike_are_stopped(ended: list[dict[str, Any]]) -> None:
    for ends in ended:
        assert "do not prune alike" in ends["apart"]
