"""What people install: everything is in it, it starts fast, and torch stays out."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

import ozgraph

ROOT = Path(__file__).resolve().parents[1]

needs_checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="runs in a checkout only")


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter where no folder of the checkout can shadow what is installed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project as a wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = {"__pycache__", ".git", ".venv", "build", "dist"}
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        if path.is_file() and relative.parts[0] in PACKAGED and not ignored.intersection(relative.parts):
            target = source / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    script = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    done = python("-c", script, str(folder), cwd=source)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


PACKAGED = {"ozgraph", "passes", "runtime", "pyproject.toml", "setup.py", "README.md", "LICENSE"}


@needs_checkout
def test_every_module_of_the_three_folders_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    expected = {
        prefix + path.relative_to(ROOT / folder).as_posix()
        for folder, prefix in (("ozgraph", "ozgraph/"), ("passes", "ozgraph/passes/"), ("runtime", "ozgraph/runtime/"))
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert expected <= set(wheel.namelist())
    assert {"ozgraph/__init__.py", "ozgraph/passes/__init__.py", "ozgraph/runtime/__init__.py"} <= expected


@needs_checkout
def test_the_wheel_carries_the_demo_the_type_marker_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    for name in ("py.typed", "demo/digits.onnx", "demo/digits.npz", "demo/README.md"):
        assert f"ozgraph/{name}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    demo = sum(entry.file_size for entry in wheel.infolist() if entry.filename.startswith("ozgraph/demo/digits"))
    assert demo < 400_000


@needs_checkout
def test_the_wheel_carries_the_page_and_its_libraries_with_their_licences(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    for folder in ("html", "vendor"):
        for path in (ROOT / "ozgraph" / "report" / folder).iterdir():
            if path.is_file():
                assert f"ozgraph/report/{folder}/{path.name}" in names
    for library in ("d3", "dagre"):
        assert {f"ozgraph/report/vendor/{library}.{kind}" for kind in ("min.js", "LICENSE")} <= set(names)


@needs_checkout
def test_nothing_generic_lands_in_site_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ozgraph"}


@needs_checkout
def test_the_core_requires_neither_torch_nor_one_build_of_onnxruntime() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = " ".join(project["dependencies"])
    assert "torch" not in core
    assert "onnxruntime" not in core
    assert {"onnxruntime", "simplify", "torch", "test"} <= set(project["optional-dependencies"])


@needs_checkout
def test_ci_runs_the_test_command_that_the_readme_names() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert ".venv/bin/pytest\n" in readme
    assert '"$work/venv/bin/pytest"\n' in ci


def test_the_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("ozgraph") == ozgraph.__version__


def test_tests_see_the_installed_package_and_not_the_checkout() -> None:
    origin = json.loads(importlib.metadata.distribution("ozgraph").read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    assert editable == (Path(ozgraph.__file__).resolve().parent == ROOT / "ozgraph")


def test_the_commands_import_without_torch_and_without_the_heavy_libraries(tmp_path: Path) -> None:
    script = (
        "import sys, ozgraph, ozgraph.cli; ozgraph.cli.run(['--help']); "
        "print('LOADED', *sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'networkx', 'rich'} & set(sys.modules)))"
    )
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize("command", ["analyze", "prune", "eliminate", "verify", "bench", "passes", "demo"])
def test_no_command_imports_torch_to_show_its_help(command: str, tmp_path: Path) -> None:
    script = (
        f"import sys, ozgraph.cli; status = ozgraph.cli.run(['{command}', '--help']); "
        "sys.exit(status or ('torch' in sys.modules))"
    )
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_lazy_and_listed(tmp_path: Path) -> None:
    script = "import sys, ozgraph; assert 'numpy' not in sys.modules; assert set(ozgraph.__all__) <= set(dir(ozgraph))"
    assert python("-c", script, cwd=tmp_path).returncode == 0
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ozgraph.no_such_name


def test_every_public_name_resolves() -> None:
    for name in ozgraph.__all__:
        assert getattr(ozgraph, name) is not None


def test_help_starts_within_0_4_seconds_of_the_interpreter(tmp_path: Path) -> None:
    def seconds(*arguments: str) -> float:
        started = time.perf_counter()
        assert python(*arguments, cwd=tmp_path).returncode == 0
        return time.perf_counter() - started

    # In turns, and the best of each: a busy machine slows both, and never speeds one up.
    rounds = [(seconds("-c", "pass"), seconds("-m", "ozgraph", "--help")) for _ in range(7)]
    bare, help_text = (min(times) for times in zip(*rounds, strict=True))
    assert help_text - bare < 0.4, f"median {statistics.median(b - a for a, b in rounds):.3f} s"


def test_a_missing_onnxruntime_is_said_in_one_line(tmp_path: Path) -> None:
    # A finder that knows no onnxruntime stands in for an environment without it.
    script = (
        "import sys, importlib.abc\n"
        "class Without(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'onnxruntime':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name='onnxruntime')\n"
        "sys.meta_path.insert(0, Without())\n"
        "import ozgraph.cli; sys.exit(ozgraph.cli.run(['demo', '--quiet']))\n"
    )
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "onnxruntime is not installed" in done.stderr
    assert "pip install" in done.stderr
