"""Model files run by onnxruntime, with its errors turned into ozgraph's.

onnxruntime is imported on first use, so any build that imports under that name will do. External data stays in its
file: onnxruntime maps it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ozgraph.errors import ModelError, OutOfMemoryError, OzgraphError
from ozgraph.graph import Array

CPU = ("CPUExecutionProvider",)

_FATAL_ONLY = 4
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"

_NO_PREPACKING = "session.disable_prepacking"

# Stamps that every onnxruntime since 1.18 runs; newer ones are asked of the installed one.
_SURE_OPSET = 21
_SURE_IR_VERSION = 10

_NO_MEMORY = re.compile(
    r"bad[ _]alloc|(failed to allocate memory|out of memory|smaller than requested bytes|_ALLOC_FAILED).*",
    re.IGNORECASE,
)
"""What allocators, arenas and CUDA's libraries say; onnxruntime has no class for it."""

_DTYPES: dict[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class Session:
    """A model that onnxruntime has loaded.

    Attributes:
        name: what messages call it.
        native: the ``onnxruntime.InferenceSession``.
        inputs: element types that the model takes; None where numpy has none.
        outputs: names, the model's own first, then the exposed ones.
    """

    name: str
    native: Any
    inputs: Mapping[str, np.dtype[Any] | None]
    outputs: tuple[str, ...]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Values of ``outputs`` (default: all) by name: arrays, or lists of them where the output is a sequence.

        Feeds are cast to the element type that the model takes, so a float32 twin accepts its original's inputs.

        Raises:
            OutOfMemoryError: memory does not suffice.
            OzgraphError: onnxruntime refused the inputs or failed on the way.
        """
        wanted = list(self.outputs if outputs is None else outputs)
        with _as_error(self.name, f"onnxruntime failed in {self.name}", OzgraphError):
            return dict(zip(wanted, self.native.run(wanted, self.fitted(feeds)), strict=True))

    def fitted(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """``feeds`` in the element types that the model takes; names that it does not know are left out."""
        return {name: np.asarray(feeds[name], dtype=dtype) for name, dtype in self.inputs.items() if name in feeds}


def open_session(
    path: Path,
    *,
    expose: Sequence[str] = (),
    optimise: bool = True,
    threads: int | None = None,
    providers: Sequence[str] = CPU,
    prepack: bool = True,
) -> Session:
    """Load a model file into onnxruntime, on the CPU unless other providers are named.

    Args:
        expose: names of intermediate tensors to add to the outputs. The file is not touched.
        optimise: whether onnxruntime may rewrite the graph.
        threads: threads inside one operator; None lets onnxruntime choose.
        prepack: whether onnxruntime may rearrange weights for speed, which copies them; without it, external data stays
            mapped.

    Raises:
        ModelError: onnxruntime is missing, lacks a provider, or cannot load the model.
        OutOfMemoryError: memory does not suffice.
    """
    runtime = _onnxruntime()
    missing = [provider for provider in providers if provider not in runtime.get_available_providers()]
    if missing:
        raise ModelError(
            f"this onnxruntime has no {', '.join(missing)}; it has {', '.join(runtime.get_available_providers())}"
        )
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    levels = runtime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if not prepack:
        options.add_session_config_entry(_NO_PREPACKING, "1")
    source: str | bytes = str(path)
    if expose:
        source = _with_outputs(path, expose)
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(path.resolve().parent))
    with _as_error(str(path), f"onnxruntime cannot load {path}", ModelError):
        native = runtime.InferenceSession(source, options, providers=list(providers))
    return Session(
        name=str(path),
        native=native,
        inputs={entry.name: _dtype(entry.type) for entry in native.get_inputs()},
        outputs=tuple(entry.name for entry in native.get_outputs()),
    )


def check_runs(opsets: Mapping[str, int], ir_version: int, where: str) -> None:
    """Refuse a model whose version stamps the installed onnxruntime does not run, before any work is done on it.

    Raises:
        ModelError: what to do, in one sentence.
    """
    opset = opsets.get("", opsets.get("ai.onnx"))
    if opset is None or (opset <= _SURE_OPSET and ir_version <= _SURE_IR_VERSION):
        return
    refusal = _refusal(opset, ir_version)
    if refusal is None:
        return
    limit = re.search(r"till opset (\d+)|max supported IR version: (\d+)", refusal)
    newest = f" (newest: {next(filter(None, limit.groups()))})" if limit else ""
    what = f"IR version {ir_version}" if "IR version" in refusal else f"opset {opset}"
    raise ModelError(
        f"{where}: uses {what}, which the installed onnxruntime does not run{newest}, and nothing is written that was "
        "not run; upgrade onnxruntime or export with an older version (`ozgraph analyze` reads the model as it is)"
    )


@lru_cache(maxsize=64)
def _refusal(opset: int, ir_version: int) -> str | None:
    """What onnxruntime says to a one-node model with these stamps; None when it runs it."""
    runtime = _onnxruntime()
    tensor = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", [tensor], [result])
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    try:
        runtime.InferenceSession(model.SerializeToString(), options, providers=list(CPU))
    except Exception as error:  # onnxruntime's exceptions share no public base class
        return str(error)
    return None


def read_structure(path: Path) -> onnx.ModelProto:
    """The model's protobuf with its external data left in place.

    Raises:
        ModelError: the file cannot be read or is not ONNX.
    """
    try:
        return onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own error classes differ between its builds
        raise ModelError(f"{path} is not an ONNX model: {error}") from error


def _with_outputs(path: Path, names: Sequence[str]) -> bytes:
    model = read_structure(path)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    encoded: bytes = model.SerializeToString()
    return encoded


def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ModelError(
            "onnxruntime is not installed, and nothing else runs the models: "
            "`pip install onnxruntime` (or another build of it, such as onnxruntime-gpu)"
        ) from error


def _dtype(kind: str) -> np.dtype[Any] | None:
    return np.dtype(_DTYPES[kind]) if kind in _DTYPES else None


@contextmanager
def _as_error(model: str, what: str, family: type[OzgraphError]) -> Iterator[None]:
    """Its bindings raise classes of their own, and plain RuntimeError or ValueError."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, (RuntimeError, ValueError, TypeError))
        if not known and not type(error).__module__.startswith("onnxruntime"):
            raise
        if short := _NO_MEMORY.search(str(error)):
            raise OutOfMemoryError(
                f"there is not enough memory to run {model} ({short.group()}); free some, or give smaller inputs"
            ) from error
        raise family(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
