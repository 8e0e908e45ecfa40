"""Python and C++ agree on what goes between them: read from the sources, because no compiler and no loader compares."""

import ctypes
import re
from pathlib import Path
from typing import get_args

import pytest

from triscale.engines.native.layers import Kind, Layer
from triscale.engines.native.library import _FUNCTIONS, Precision
from triscale.kernels.compiled import DepthwiseShape, ExciteShape
from triscale.kernels.library import _ARGUMENTS, ACTIVATIONS, Result

NATIVE = Path(__file__).parents[1] / "src/triscale/kernels/native"
TYPES = {"int": ctypes.c_int, "int64_t": ctypes.c_int64, "double": ctypes.c_double}


def source(name: str) -> str:
    """Without comments, all white space alike."""
    return " ".join(re.sub(r"//.*", "", (NATIVE / name).read_text()).split())


def found(pattern: str, text: str) -> str:
    """What the pattern's group is, which must be there once."""
    (one,) = re.findall(pattern, text)
    return str(one)


def fields(struct: str, text: str) -> list[str]:
    """The names of a structure's whole numbers of 64 bits, in order; behind them there may be functions alone."""
    body = found(rf"struct {struct} {{ ((?:int64_t [\w, ]+; )+)(?:}}|\w+ \w+\()", text)
    return re.findall(r"\w+", body.replace("int64_t", ""))


def values(enum: str, text: str) -> dict[str, int]:
    """The names of an enumeration with their numbers."""
    numbers: dict[str, int] = {}
    for entry in found(rf"enum {enum} : \w+ {{ ([^}}]*) }}", text).split(","):
        name, _, number = entry.partition("=")
        numbers[name.strip()] = int(number) if number else len(numbers)
    return numbers


def types(parameters: str) -> tuple[object, ...]:
    """Of a list of parameters: any pointer is one, but for text."""
    found = []
    for parameter in filter(None, parameters.split(", ")):
        text = parameter.startswith("char*")
        found.append(
            ctypes.c_char_p if text else ctypes.c_void_p if "*" in parameter else TYPES[parameter.partition(" ")[0]]
        )
    return tuple(found)


@pytest.mark.parametrize("structure", [DepthwiseShape, ExciteShape])
def test_a_shape_has_the_fields_of_the_header(structure: type[ctypes.Structure]) -> None:
    assert [name for name, *_ in structure._fields_] == fields(structure.__name__, source("interface.h"))
    assert {kind for _, kind, *_ in structure._fields_} == {ctypes.c_int64}


def test_kernels_take_what_they_are_given() -> None:
    declared = dict(re.findall(r"int \(\*(\w+)\)\(([^)]*)\)", source("interface.h")))
    exported = dict(re.findall(r"EXPORT int triscale_(\w+)\(([^)]*)\)", source("interface.cpp")))
    for parameters in (declared, exported):
        assert {name: types(given) for name, given in parameters.items()} == _ARGUMENTS


def test_results_and_activations_have_the_numbers_of_the_header() -> None:
    header = source("interface.h")
    assert values("Result", header) == {
        "kDone": Result.DONE,
        "kNoMemory": Result.NO_MEMORY,
        "kDeclined": Result.DECLINED,
    }
    assert values("Activation", header) == {f"k{name.title()}": place for place, name in enumerate(ACTIVATIONS)}


def test_a_layer_has_the_fields_and_the_kinds_of_the_header() -> None:
    header = source("inference/layer.h")
    *given, completed = fields("Layer", header)
    assert given == list(Layer._fields)
    assert completed == "planar"  # by the C++ side alone
    assert int(found(r"kFields = (\d+)", header)) == len(given)
    kinds = {f"k{kind.name.title().replace('_', '')}": int(kind) for kind in Kind}
    assert values("Kind", header) == {**kinds, "kKinds": len(kinds)}


def test_precisions_have_the_numbers_of_the_header() -> None:
    wanted = {f"k{name.title()}": place for place, name in enumerate(get_args(Precision))}
    assert values("Precision", source("inference/layer.h")) == wanted


def test_the_engine_takes_what_it_is_given() -> None:
    exported = re.findall(r"EXPORT ([\w*]+) triscale_engine_(\w+)\(([^)]*)\)", source("inference/engine.cpp"))
    results = {**TYPES, "void": None, "void*": ctypes.c_void_p}
    assert {name: (results[result], types(given)) for result, name, given in exported} == _FUNCTIONS
