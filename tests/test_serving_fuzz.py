"""Requests that schemathesis makes up from /openapi.json: each is answered as that says, and none by a fault."""

import warnings
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import bright, fetch, known, serving

from triscale.serving import Limits, application

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        allow_header_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
        unsupported_method,
    )

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    allow_header_conformance,
    unsupported_method,
]
DESCRIBED = schemathesis.openapi.from_dict(application(known(), Limits()).openapi())
OPERATIONS = {operation.label: operation for operation in (found.ok() for found in DESCRIBED.get_all_operations())}
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(known(), Limits(queue=64)) as (_, port):
        yield port


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_is_answered_as_described(label: str, port: int) -> None:
    cases = [OPERATIONS[label].as_strategy(generation_mode=mode) for mode in MODES]

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(st.one_of(cases))
        if data.draw(st.booleans()):  # made-up names alone would never reach a model
            case.path_parameters |= {name: "known" if name == "name" else "1" for name in case.path_parameters}
        case.call_and_validate(base_url=f"http://127.0.0.1:{port}", checks=CHECKS)

    ask()
    assert fetch(port, 100) == pytest.approx(bright(100), abs=1e-6)


def test_everything_that_can_be_asked_is_asked_here() -> None:
    assert {"POST /predict", "POST /v2/models/{name}/infer", "GET /v2", "GET /metrics"} <= set(OPERATIONS)
