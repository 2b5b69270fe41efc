"""Writing an ONNX model so that a half-written file never carries a name that anyone would read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress

import onnx
import onnx_ir as ir

from ozgraph.backends.streaming import embedded, stream
from ozgraph.errors import ModelError, OzgraphError, UsageError, VerificationError
from ozgraph.frontends import dictionaries
from ozgraph.frontends.normal_form import root_cause

LARGEST_INLINE = 3 << 29
"""Weights of more bytes (1.5 GiB) go to external data: protobuf files end at 2 GiB."""

_SMALL = 1024  # bytes of a tensor that stays inline beside external data

Progress = Callable[[int, int], None]


def check(path: str | os.PathLike[str]) -> None:
    """Let onnx check the file at ``path`` with full type and shape inference.

    Raises:
        VerificationError: the checker objects.
    """
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and plain errors from inside the checker
        raise VerificationError(
            f"the model to be written is not valid ONNX: {root_cause(error)}; report this"
        ) from None


def refuse(
    path: str | os.PathLike[str], forbid: Iterable[str | os.PathLike[str]] = (), what: str = ".onnx file"
) -> str:
    """The real path that writing to ``path`` would create; ``what`` is to be written.

    Raises:
        UsageError: a folder, a file that ``forbid`` names (an input of this run), or a place that cannot be written.
    """
    given = os.fspath(path)
    target = os.path.realpath(given)
    if os.path.isdir(target) or given.endswith(("/", os.sep)) or not os.path.basename(given):
        raise UsageError(f"{given}: is a folder; give the path of the {what} to write")
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise UsageError(f"{given}: its folder {folder} does not exist; create it first")
    for item in forbid:
        for candidate in (target, target + ".data"):
            if _same(candidate, os.fspath(item)):
                raise UsageError(f"{given}: would overwrite the input {os.fspath(item)}; give another output path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{given}: its folder {folder} cannot be written to; give another output path")
    if os.path.exists(target) and not os.path.isfile(target):
        raise UsageError(f"{given}: exists and is not a regular file; give another output path")
    return target


def write(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    forbid: Iterable[str | os.PathLike[str]] = (),
    external: bool | None = None,
    verify: Callable[[str], None] | None = check,
    progress: Progress | None = None,
) -> str:
    """Write ``model`` to ``path``, whole or not at all; weights are read and written one at a time.

    The model is written to a hidden folder beside ``path``, checked there, then renamed. External data goes to
    ``<name>.data`` beside it.

    Args:
        model: left as it is.
        path: the file to write; an existing file is replaced at the very end.
        forbid: files that must not be overwritten, such as the model's own input and its external data.
        external: keep weights in external data; None does so when the original did, or when they exceed 1.5 GiB.
        verify: called with the temporary file's path before it gets its name; raises to stop.
        progress: called with (bytes written, bytes in all) as weights are written.

    Returns:
        The real path of the file written.

    Raises:
        UsageError: ``path`` is a folder, is an input, or cannot be written.
        ModelError: the model has something in it that no file can hold.
        VerificationError: the result is not valid.
    """
    target = refuse(path, forbid)
    if external is None:
        external = bool(model.meta.get("ozgraph.external")) or weight_bytes(model) > LARGEST_INLINE
    try:
        hidden = tempfile.mkdtemp(prefix=f".{os.path.basename(target)}.", dir=os.path.dirname(target))
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: cannot be written ({error.strerror}); give another path") from None
    try:
        temporary = os.path.join(hidden, os.path.basename(target))
        _save(model, temporary, external, progress)
        if verify is not None:
            verify(temporary)
        _rename(temporary, target, hidden)
    except OzgraphError:
        raise
    except ir.serde.SerdeError as error:  # such as text that is not UTF-8, which reading lets through
        raise ModelError(f"the model cannot be written: {root_cause(error)}; export it anew") from None
    except OSError as error:
        raise UsageError(
            f"{os.fspath(path)}: cannot be written ({error.strerror or error}); free some space or give another path"
        ) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return target


def _same(first: str, second: str) -> bool:
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    with suppress(OSError):
        return os.path.samefile(first, second)
    return False


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all weights of a model."""
    return sum(
        int(value.const_value.nbytes)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _save(model: ir.Model, path: str, external: bool, progress: Progress | None) -> None:
    """Write ``model``, which is the same afterwards, to ``path``."""
    restore: list[tuple[ir.Node, ir.Attr]] = []
    small: list[tuple[ir.Value, ir.ExternalTensor]] = []
    total, written = weight_bytes(model), 0

    def count(tensor: ir.TensorProtocol, _: object = None) -> None:
        nonlocal written
        written += int(tensor.nbytes)
        if progress is not None:
            progress(written, total)

    try:
        for node in model.graph.all_nodes():
            for attribute in list(node.attributes.values()):
                # A reference into the original's folder means nothing beside the new file.
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    restore.append((node, attribute))
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, embedded(attribute.value))
        if external:
            for value, tensor in _small_external(model):
                small.append((value, tensor))
                value.const_value = embedded(tensor)
            data = os.path.basename(path) + ".data"
            ir.save(model, path, external_data=data, size_threshold_bytes=_SMALL, callback=count)
            if dictionaries.DOMAIN in model.graph.opset_imports:
                dictionaries.show_in_file(path)
        else:
            with open(path, "wb") as file:
                stream(model, file, count)
    finally:
        for node, attribute in restore:
            node.attributes[attribute.name] = attribute
        for value, tensor in small:
            value.const_value = tensor


def _small_external(model: ir.Model) -> list[tuple[ir.Value, ir.ExternalTensor]]:
    """External weights that go inside the file, which onnx_ir would unmap although others still look at them."""
    return [
        (value, value.const_value)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor) and value.const_value.nbytes <= _SMALL
    ]


def _rename(temporary: str, target: str, hidden: str) -> None:
    """Give the finished files their names; if that is interrupted, the files that were there come back."""
    data, new_data = temporary + ".data", target + ".data"
    saved = os.path.join(hidden, "previous.data")
    moved = False
    done = False
    try:
        if os.path.exists(data):
            if os.path.exists(new_data):
                os.replace(new_data, saved)
            moved = True
            os.replace(data, new_data)
        os.replace(temporary, target)
        done = True
    finally:
        if moved and not done:
            with suppress(OSError):
                os.unlink(new_data)
            if os.path.exists(saved):
                os.replace(saved, new_data)
