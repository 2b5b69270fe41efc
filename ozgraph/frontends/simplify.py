"""Run onnxsim on a model first: optional, and in a process of its own, since importing it may import torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ozgraph.errors import UsageError

if TYPE_CHECKING:
    import onnx
    import onnx_ir

LARGEST = 512 << 20
"""Models of more bytes (512 MiB) are read as they are: onnxsim holds several copies in memory."""

SECONDS = 600.0

_CHILD = """
import sys, onnx, onnxsim
model, ok = onnxsim.simplify(onnx.load(sys.argv[1]))
if not ok:
    sys.exit("its own check failed")
onnx.save(model, sys.argv[2])
"""


def simplified(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model,
    differ: Callable[[Path, Path], str | None] | None = None,
    files: Iterable[str] = (),
) -> str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model:
    """The model as onnxsim writes it; ``source`` itself, with a warning, where onnxsim cannot take it.

    Args:
        source: a model that has been loaded once: what it reads has been checked.
        differ: given the files before and after, says in what they differ; None where they do not.
        files: all that the model reads, itself and its external data.

    Raises:
        UsageError: onnxsim is not installed.
    """
    if find_spec("onnxsim") is None:
        raise UsageError("onnxsim is not installed; `pip install onnxsim`, or leave simplification out")
    with tempfile.TemporaryDirectory(prefix="ozgraph-simplify-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        path = _file(source, before)
        if path is None or _bytes(path, files) > LARGEST:
            return _as_it_is(source, f"it is larger than {LARGEST >> 20} MiB")
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, os.fspath(path), str(after)],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _as_it_is(source, f"onnxsim took longer than {SECONDS:.0f} s")
        if done.returncode or not after.exists():
            lines = done.stderr.strip().splitlines()
            return _as_it_is(source, lines[-1] if lines else f"onnxsim ended with {done.returncode}")
        difference = None if differ is None else differ(Path(path), after)
        if difference is not None:
            return _as_it_is(source, difference)
        return after.read_bytes()


def _file(source: object, scratch: Path) -> str | os.PathLike[str] | None:
    """A file that holds the model; None where it would be too large to write."""
    import onnx
    import onnx_ir

    if isinstance(source, (str, os.PathLike)):
        return source
    if isinstance(source, onnx_ir.Model):
        onnx_ir.save(source, scratch)
        return scratch
    content = source if isinstance(source, bytes) else None
    if content is None and isinstance(source, onnx.ModelProto):
        if source.ByteSize() > LARGEST:
            return None
        content = source.SerializeToString()
    scratch.write_bytes(content or b"")
    return scratch


def _bytes(path: str | os.PathLike[str], files: Iterable[str]) -> int:
    """Bytes of a model and of every file that keeps its external data."""
    read = {os.path.realpath(path), *(os.path.realpath(file) for file in files)}
    return sum(os.path.getsize(file) for file in read if os.path.isfile(file))


def _as_it_is(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model, why: str
) -> str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model:
    warnings.warn(f"onnxsim did not simplify the model ({why}); it is read as it is", stacklevel=3)
    return source
