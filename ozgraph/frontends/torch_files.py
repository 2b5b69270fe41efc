"""Saved ``torch.export`` programs (``.pt2``), read so that nothing in the file runs.

torch reads such a file with pickle where the file asks for it, and evaluates expressions of sizes. Files come from
anywhere, so what would run code is refused before torch sees the file: pickled weights, constants and objects, sample
inputs that are more than tensors, and names, operators and expressions that are more than that.

Importing this module imports torch.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from ozgraph.collector import collector_paused
from ozgraph.errors import ModelError, OzgraphError, UsageError
from ozgraph.frontends.torch_faults import first_line
from ozgraph.frontends.torch_graph import build
from ozgraph.frontends.torch_origin import TorchOrigin
from ozgraph.frontends.torch_quiet import quiet
from ozgraph.frontends.torch_versions import unguarded
from ozgraph.graph import Graph

_NAME = re.compile(r"[\w.]*")
_TARGET = re.compile(r"(torch\.ops|_operator|operator|math|torch\.sym)[\w.:]+|torch\.sym_\w+|[a-z_]*")
_EXPRESSION = re.compile(r"([\w\s+\-*/(),<>=&|~']|\d\.\d)*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_WORDS = frozenset({
    "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "ModularIndexing", "Where", "Eq", "Ne", "Lt",
    "Le", "Gt", "Ge", "And", "Or", "Not", "True", "False", "Abs", "Integer", "Rational", "Symbol", "Float",
    "IntTrueDiv", "FloatTrueDiv", "CeilToInt", "FloorToInt", "TruncToInt", "ToFloat", "PowByNatural", "Identity", "Mul",
    "Add", "Pow", "int_oo", "oo", "positive", "integer",
})  # fmt: skip
_PLAIN = ("archive_format", "archive_version", "byteorder", "version")
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")
_RULES = {"name": _NAME, "target": _TARGET, "expr_str": _EXPRESSION}
_TABLES = frozenset({"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values"})


@collector_paused()
def load(path: str | os.PathLike[str]) -> Graph:
    """Read a program that ``torch.export.save`` wrote; nothing is run and the file is not changed.

    Raises:
        ModelError: it is no such file, or something in it would run code.
        UsageError: it cannot be opened.
    """
    where = os.fspath(path)
    try:
        with zipfile.ZipFile(where) as archive:
            _refuse(archive, where)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror or error}); give the path of a .pt2 file") from None
    except zipfile.BadZipFile:
        raise ModelError(f"{where}: is no saved torch.export program; write it with torch.export.save") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"{where}: is damaged ({first_line(error)}); save the program again") from None
    try:
        with quiet():
            program = torch.export.load(where)
            module = unguarded(program)
        args, kwargs = program.example_inputs or ((), {})
        origin = TorchOrigin(program, module, tuple(args), dict(kwargs), files=frozenset({os.path.realpath(where)}))
        return build(origin, os.path.splitext(os.path.basename(where))[0])
    except OzgraphError:
        raise
    except Exception as error:  # whatever torch makes of a file that is not what it says
        raise ModelError(f"{where}: torch cannot read it ({first_line(error)}); save the program again") from error


def _refuse(archive: zipfile.ZipFile, where: str) -> None:
    """Stop at what is not plain tensors and a graph of operators.

    Raises:
        ModelError: there is such a thing.
    """

    def refused(what: str) -> ModelError:
        return ModelError(f"{where}: {what}, which may run code of its own; save the program without it")

    graphs = 0
    for entry in archive.infolist():
        inside = entry.filename.partition("/")[2]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise refused(f"{entry.filename} is compressed")
        if inside.startswith("models/") and inside.endswith(".json"):
            graphs += 1
            for what, text in _strings(json.loads(archive.read(entry))):
                if not _harmless(what, text):
                    raise refused(f"its graph has a {what} {text[:60]!r}")
        elif inside.endswith("_config.json"):
            for name, payload in json.loads(archive.read(entry))["config"].items():
                held = str(payload["path_name"])
                if payload.get("use_pickle") or not held.startswith(("weight_", "tensor_")):
                    raise refused(f"{name} is a pickled object")
        elif inside.startswith("data/sample_inputs/"):
            try:
                torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
            except Exception:
                raise refused("its sample inputs are more than tensors") from None
        elif inside.startswith(("data/weights/", "data/constants/")):
            if not inside.rpartition("/")[2].startswith(("weight_", "tensor_")):
                raise refused(f"{entry.filename} is a pickled object")
        elif inside.startswith("data/") or not (
            inside.startswith((".data/", "extra/"))
            or inside in ("archive_format", "archive_version", "byteorder", "version")
        ):
            raise refused(f"it holds {entry.filename}")
    if graphs != 1:
        raise ModelError(f"{where}: holds {graphs} programs; write it with torch.export.save")


def _strings(document: Any) -> Iterator[tuple[str, str]]:
    """Names, operators and expressions in a document, each with its kind."""
    waiting = [document]
    while waiting:
        here = waiting.pop()
        if isinstance(here, list):
            waiting.extend(here)
        elif isinstance(here, dict):
            for key, entry in here.items():
                if key == "metadata":
                    continue  # text for people
                if key in _RULES and isinstance(entry, str):
                    yield key, entry
                if key in _TABLES and isinstance(entry, dict):
                    yield from (("name", str(name)) for name in entry)
                waiting.append(entry)


def _harmless(what: str, text: str) -> bool:
    if "__" in text and what != "name":
        return what == "target" and text.startswith("torch.ops.aten.__")
    if not _RULES[what].fullmatch(text):
        return False
    if what != "expr_str":
        return True
    return all(word in _WORDS or _SYMBOL.fullmatch(word) for word in _WORD.findall(text))
