"""The application: addresses, what each takes, and what it answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from triscale.serving import describing
from triscale.serving.answering import Desk
from triscale.serving.bodies import Bodies, Receive
from triscale.serving.guarding import LOCAL, Guard, State
from triscale.serving.limits import Limits
from triscale.serving.metrics import CONTENT_TYPE, Metrics
from triscale.serving.open_inference import EXTENSIONS, VERSION, metadata
from triscale.serving.opening import Served
from triscale.serving.page import assemble
from triscale.serving.refusing import GoneError, RefusedError
from triscale.serving.tokens import Token

MODEL = "/v2/models/{name}"
HEADER = "inference-header-content-length"
Result = TypeVar("Result")


def application(
    served: Served,
    limits: Limits,
    *,
    token: Token | None = None,
    state: State | None = None,
    host: str = LOCAL,
) -> FastAPI:
    """What answers requests about one model; any ASGI server carries it.

    token: what a request must say; None lets everybody ask who names this machine localhost, by an address that only it
    can reach, or `host`. state: where a server says that it is going down.
    """
    state, metrics = state or State(), Metrics()
    desk = Desk(served, limits, metrics)
    bodies = Bodies(limits)
    metrics.watch("body_bytes", "Bytes of bodies that are held.", lambda: bodies.held)

    @asynccontextmanager
    async def lifetime(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(desk.close)

    app = FastAPI(
        title=f"Triscale: {served.name}",
        version=version("triscale"),
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifetime,
        exception_handlers=_IN_WORDS,
        redirect_slashes=False,
    )
    _add_health(app, served, state)
    _add_models(app, served)
    _add_answers(app, desk, bodies)
    _add_page(app, served, limits, token)

    @app.get("/metrics", responses=describing.text("Prometheus' text format."), response_class=Response)
    async def metrics_page() -> Response:
        """What was counted so far."""
        return Response(metrics.page(), media_type=CONTENT_TYPE)

    app.add_middleware(Guard, token=token, metrics=metrics, state=state, host=host)
    return app


def _add_health(app: FastAPI, served: Served, state: State) -> None:
    @app.get("/v2/health/live", responses=describing.json({"live": True}))
    async def live() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"live": True})

    async def ready() -> JSONResponse:
        """Whether requests are taken: no longer while the server is going down."""
        return JSONResponse({"ready": not state.draining}, 503 if state.draining else 200)

    app.get("/v2/health/ready", responses=describing.json({"ready": True}, 503))(ready)

    async def model_ready(name: str, version: str = VERSION) -> JSONResponse:
        """Whether requests for the model are taken."""
        _check_name(served, name, version)
        return JSONResponse({"name": served.name, "ready": True})

    for path in (MODEL, f"{MODEL}/versions/{{version}}"):
        app.get(f"{path}/ready", responses=describing.json({"name": served.name, "ready": True}, 404))(model_ready)


def _add_models(app: FastAPI, served: Served) -> None:
    about = {"name": "triscale", "version": version("triscale"), "extensions": EXTENSIONS}

    @app.get("/v2", responses=describing.json(about))
    async def server() -> JSONResponse:
        """What server this is."""
        return JSONResponse(about)

    async def model(name: str, version: str = VERSION) -> JSONResponse:
        """What the model takes and gives."""
        _check_name(served, name, version)
        return JSONResponse(metadata(served))

    for path in (MODEL, f"{MODEL}/versions/{{version}}"):
        app.get(path, responses=describing.json(metadata(served), 404))(model)


def _add_answers(app: FastAPI, desk: Desk, bodies: Bodies) -> None:
    served, default = desk.served, min(5, len(desk.served.classes))

    @app.post("/predict", responses=describing.PREDICT, openapi_extra=describing.PICTURE)
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=100_000, description="How many classes to name.")] = default,
        map: Annotated[bool, Query(description="Also show where the likeliest class is; needs a run.")] = False,
    ) -> Response:
        """The likeliest classes of the picture that is the body, with their probabilities."""
        if not served.sees_pictures:
            n = served.preprocess.channels
            raise RefusedError(415, f"the model looks at {n} channels, which pictures do not have; send tensors")
        if map and not served.maps:
            raise RefusedError(422, "map: an exported file has none; leave it out, or serve the run that it came from")
        desk.check_room()
        async with bodies.reading(request.headers.get("content-length"), request.receive) as content:
            found = await _unless_gone(request.receive, desk.picture(content, top, map))
        return JSONResponse(found)

    async def infer(request: Request, name: str, version: str = VERSION) -> Response:
        """Tensors in, tensors out: the Open Inference Protocol."""
        _check_name(served, name, version)
        desk.check_room()
        header = request.headers.get(HEADER)
        async with bodies.reading(request.headers.get("content-length"), request.receive) as content:
            body, size = await _unless_gone(request.receive, desk.tensors(content, header))
        if size is None:
            return Response(body, media_type="application/json")
        return Response(body, media_type="application/octet-stream", headers={HEADER: str(size)})

    for path in (MODEL, f"{MODEL}/versions/{{version}}"):
        extra = describing.tensors(served)
        app.post(f"{path}/infer", responses=describing.INFER, openapi_extra=extra)(infer)


def _add_page(app: FastAPI, served: Served, limits: Limits, token: Token | None) -> None:
    page = assemble(served, limits, needs_token=token is not None)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page.content, media_type="text/html", headers={"content-security-policy": page.policy})


def _check_name(served: Served, name: str, version: str) -> None:
    if name != served.name:
        raise RefusedError(404, f"no model {name[:80]!r} here; there is {served.name!r}")
    if version != VERSION:
        raise RefusedError(404, f"no version {version[:80]!r} of {name!r}; there is {VERSION!r}")


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives; it ends where whoever asked hangs up. Raises `GoneError` there."""
    answer, end = asyncio.create_task(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise GoneError
    finally:
        for task in (answer, end):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": error.reason}, error.status, error.headers)


async def _unknown(request: Request, error: Exception) -> Response:
    """No such address, or not this way."""
    assert isinstance(error, HTTPException)
    reason = {404: f"{request.url.path[:80]!r}: there is nothing; /openapi.json lists what there is"}
    said = reason.get(error.status_code, f"{request.method}: {error.detail}")
    return JSONResponse({"error": said}, error.status_code, error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: Mapping[str, Any] = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]}, 422)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error; the server's own output has more"}, 500)


_IN_WORDS: dict[int | type[Exception], Callable[[Request, Exception], Coroutine[Any, Any, Response]]] = {
    RefusedError: _refused,
    HTTPException: _unknown,
    RequestValidationError: _invalid,
    Exception: _failed,
}
