"""Python functions take what people give, or say in one sentence what they take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ozgraph
from ozgraph import demo
from ozgraph.errors import UsageError

DIGITS = Path(demo.__file__).with_name("digits.onnx")
SOME = ozgraph.Target(macs=0.1)


def test_one_glob_may_stand_alone() -> None:
    one = ozgraph.analyze(DIGITS, include="stem.weight")
    assert [row.active for row in one.report.families].count(True) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ozgraph.prune(DIGITS, target=0.5), r"such as Target\(macs=0.5\); got 0.5"),
        (lambda: ozgraph.prune(DIGITS), "a target"),
        (lambda: ozgraph.prune(DIGITS, target=SOME, inputs={"image": np.zeros(1)}), "give the .npz file"),
        (lambda: ozgraph.analyze(DIGITS, shapes=[("image", (1, 1, 8, 8))]), "by the name of an input"),
        (lambda: ozgraph.analyze(DIGITS, shapes={"image": "1x1x8x8"}), "got '1x1x8x8' for 'image'"),
    ],
)
def test_what_makes_no_sense_is_answered_with_an_example(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()


def test_a_fraction_without_a_name_is_no_target() -> None:
    with pytest.raises(TypeError):
        ozgraph.Target(0.5)  # type: ignore[misc]


def test_results_are_printed_in_a_line() -> None:
    result = ozgraph.prune(DIGITS, target=SOME)
    for thing in (result, ozgraph.analyze(DIGITS)):
        assert "digits.onnx" in repr(thing)
        assert len(repr(thing)) < 200 and "\n" not in repr(thing)


def test_what_needs_torch_says_so_where_there_is_none(tmp_path: Path) -> None:
    script = (
        "import sys, importlib.abc\n"
        "class Without(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name='torch')\n"
        "sys.meta_path.insert(0, Without())\n"
        "import ozgraph, ozgraph.runtime\n"
        "for home, name in ((ozgraph, 'find_groups'), (ozgraph, 'export'), (ozgraph.runtime, 'HESSO')):\n"
        "    try:\n"
        "        getattr(home, name)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("needs torch: pip install 'ozgraph[torch]'") == 3


def test_example_inputs_are_taken_as_people_have_them() -> None:
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, x: Any, scale: Any) -> Any:
            return self.second(torch.relu(self.first(x))) * scale

    module, x, scale = Scaled(), torch.randn(3, 4), torch.ones(())
    for args, kwargs in (([x, scale], None), ((x,), {"scale": scale}), ({"x": x, "scale": scale}, None)):
        assert len(ozgraph.capture(module, args, kwargs).inputs) == 2
    with pytest.raises(UsageError, match=r"torch\.from_numpy"):
        ozgraph.capture(module, (x.numpy(), scale))
    with pytest.raises(UsageError, match="given twice"):
        ozgraph.capture(module, {"x": x}, {"scale": scale})


def test_an_output_that_torch_export_does_not_know_is_named() -> None:
    torch = pytest.importorskip("torch")

    class Cache:
        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

    class Cached(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x * 2, Cache(x)

    with pytest.raises(ozgraph.OzgraphError, match=r"it returns a Cache, .* have it return tensors alone"):
        ozgraph.capture(Cached(), torch.randn(2))
