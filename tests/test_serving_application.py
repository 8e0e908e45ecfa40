"""What the application answers: pictures, tensors, health, metrics, and one line for whatever it does not."""

import asyncio
import base64
import io
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pngs import GRAY, bomb
from served import HOME, PATIENCE, Gate, asking, bright, brightness, error, get, gray, known, post, said

from triscale.errors import UserError
from triscale.explaining import class_activation_maps
from triscale.fitting import Fitted
from triscale.models import learned
from triscale.serving import Limits, Served, answering, application, opened
from triscale.serving.guarding import State
from triscale.serving.looking import MOST_SCANS, Asked, Seen, compute_maps, has_many_scans, look
from triscale.serving.opening import addressable, name_in_addresses
from triscale.serving.tokens import Token

TOKEN = Token("0123456789abcdef0123")


def test_a_picture_is_answered_as_predict_answers_it(fitted: Fitted, digits: Path) -> None:
    model, pictures = learned(fitted.run.path), sorted(digits.rglob("*.png"))[::7]

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", content=picture.read_bytes()) for picture in pictures))

    with opened(fitted.run.path) as served:
        answers = asking(served, ask)
    for picture, answer in zip(pictures, answers, strict=True):
        found = [(one["name"], one["probability"]) for one in answer.json()["classes"]]
        expected = model.predict(picture)
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert [share for _, share in found] == pytest.approx([share for _, share in expected], abs=1e-5)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=12), st.sampled_from(["PNG", "BMP", "TIFF", "PPM"]))
def test_everybody_gets_the_answer_to_their_own_picture(grays: list[int], kind: str) -> None:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", content=gray(value, kind)) for value in grays))

    answers = asking(known(), ask, limits=Limits(batch=3))
    assert [said(answer) for answer in answers] == pytest.approx([bright(value) for value in grays], abs=1e-6)


def test_as_many_classes_are_named_as_are_asked_for() -> None:
    (likeliest,) = post("/predict?top=1", gray(200)).json()["classes"]
    assert likeliest["name"] == "bright"
    assert len(post("/predict?top=99", gray(200)).json()["classes"]) == 2


def test_the_map_is_the_class_activation_map_of_the_likeliest_class(fitted: Fitted, digits: Path) -> None:
    picture = sorted(digits.rglob("*.png"))[30]
    with opened(fitted.run.path) as served:
        found = post("/predict?map=true", picture.read_bytes(), served).json()
        assert served.network is not None
        x = served.preprocess(picture)
        place = served.classes.index(found["classes"][0]["name"])
        (values,) = compute_maps(served.network, [Asked(x, place)])
        expected = class_activation_maps(served.network, x[None], [place]).values[0].detach().numpy()
    np.testing.assert_allclose(values, expected)
    kind, _, image = found["map"]["image"].partition(",")
    assert (found["map"]["class"], kind) == (found["classes"][0]["name"], "data:image/jpeg;base64")

    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))))
    assert min(drawn.shape[:2]) >= 320
    assert drawn.std(axis=2).max() > 10  # coloured somewhere


def test_no_map_is_given_where_none_is_asked_for_and_none_can_be_asked_of_an_exported_file(fitted: Fitted) -> None:
    answer = post("/predict?map=true", gray(9))
    assert answer.status_code == 422
    assert "an exported file has none" in error(answer)
    assert "map" not in post("/predict?map=false", gray(9)).json()
    with opened(fitted.run.path) as served:
        assert "map" not in post("/predict", gray(9), served).json()


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"", 415, "empty"),
        (b"no picture at all", 415, "known format"),
        (gray(7)[:-20], 415, "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 500, 415, "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_line(content: bytes, status: int, why: str) -> None:
    answer = post("/predict", content)
    assert answer.status_code == status
    assert why in error(answer)


def test_a_picture_of_too_many_pixels_is_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    answer = post("/predict", bomb(60_000, 60_000, kind=GRAY))
    assert (answer.status_code, "60000×60000" in error(answer)) == (413, True)
    assert post("/predict", bomb(101, 100, kind=GRAY), limits=Limits(pixels=10_000)).status_code == 413


def scans(extra: int) -> bytes:
    """A progressive JPEG whose last scan is said again and again."""
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    return content[:-2] + content[content.rfind(b"\xff\xda") : -2] * extra + content[-2:]


def test_a_picture_in_thousands_of_scans_is_refused_and_one_in_ten_is_not() -> None:
    assert post("/predict", scans(0)).status_code == 200
    answer = post("/predict", scans(5_000))
    assert (answer.status_code, "scans" in error(answer)) == (415, True)


def test_what_lies_behind_a_picture_or_within_a_segment_is_no_scan_of_it() -> None:
    film = np.random.default_rng(0).bytes(10_000) + b"\xff\xda\0\2" * 1000  # as phones put one behind a picture
    picture = scans(0)
    assert post("/predict", picture + film).status_code == 200
    told = b"\xff\xec\x10\x00" + (b"\xff\xda" * 0x1000)[:0xFFE]
    assert post("/predict", picture[:2] + told + picture[2:]).status_code == 200
    assert post("/predict", picture[:2] + told + scans(5_000)[2:]).status_code == 415


def test_scans_are_counted_behind_markers_that_have_no_length() -> None:
    content, scan = scans(0), scans(1)[len(scans(0)) - 2 : -2]
    for marker in (b"\xff\x02\xff\xff", b"\xff\x01", b"\xff\xd3\xff\xff", b"\xff\0\xff\xff\xff"):
        assert has_many_scans(content[:-2] + (marker + scan) * 60 + content[-2:])
        assert not has_many_scans(content[:-2] + (marker + scan) * 5 + content[-2:])


@given(st.lists(st.sampled_from([b"\xff", b"\xda", b"\xd9", b"\xe0", b"\0", b"\2", b"\xd0", b"x"])).map(b"".join))
def test_a_malformed_jpeg_is_walked_through_to_its_end(content: bytes) -> None:
    assert has_many_scans(b"\xff\xd8" + content) is False or content.count(b"\xda") > MOST_SCANS


def test_a_picture_of_nothing_but_segments_is_refused_before_all_are_looked_at() -> None:
    assert has_many_scans(b"\xff\xd8" + b"\xff\xe0\0\2" * 4_000_000)
    assert not has_many_scans(b"\xff\xd8" + b"\xff" * 8_000_000)


def test_small_pictures_do_not_wait_for_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    go, waiting = threading.Event(), threading.Semaphore(0)

    def slowly(served: Served, content: bytes, most: int, keep: bool) -> Seen:
        seen = look(served, content, most, keep)
        if most > 20:
            waiting.release()
            assert go.wait(60)
        return seen

    monkeypatch.setattr(answering, "LARGE", 20)
    monkeypatch.setattr(answering, "look", slowly)
    large = io.BytesIO()
    Image.new("L", (5, 5), 200).save(large, "PNG")

    async def ask(client: httpx.AsyncClient) -> tuple[list[httpx.Response], list[httpx.Response]]:
        slow = [asyncio.create_task(client.post("/predict", content=large.getvalue())) for _ in range(9)]
        await asyncio.to_thread(waiting.acquire)
        quick = [await client.post("/predict", content=gray(value)) for value in range(30)]
        go.set()
        return quick, await asyncio.gather(*slow)

    quick, slow = asking(known(), ask, limits=Limits(pixels=1000, deadline=60.0))
    assert [said(one) for one in quick] == pytest.approx([bright(value) for value in range(30)], abs=1e-6)
    assert [said(one) for one in slow] == pytest.approx([bright(200)] * 9, abs=1e-6)


def test_a_picture_that_cannot_be_decoded_keeps_no_batch_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, go = threading.Event(), threading.Event()

    def slowly(served: Served, content: bytes, max_pixels: int, keep: bool) -> Seen:
        if content == b"broken":
            decoding.set()
            assert go.wait(PATIENCE)
        return look(served, content, max_pixels, keep)

    monkeypatch.setattr(answering, "look", slowly)
    monkeypatch.setattr(answering, "usable_cores", lambda: 2)

    async def ask(client: httpx.AsyncClient) -> None:
        broken = asyncio.create_task(client.post("/predict", content=b"broken"))
        assert await asyncio.to_thread(decoding.wait, PATIENCE)
        whole = asyncio.create_task(client.post("/predict", content=gray(100)))
        while "triscale_images_waiting 1.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.001)
        go.set()
        assert (await broken).status_code == 415
        assert said(await whole) == pytest.approx(bright(100))

    # A batch may wait for others until long after the deadline, at which it would be refused.
    asking(known(), ask, limits=Limits(deadline=PATIENCE / 4, wait=2 * PATIENCE))


def test_a_body_is_refused_as_soon_as_it_is_too_large_and_not_read_further() -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 1000

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/predict", content=endless())

    answer = asking(known(), ask, limits=Limits(body=5_500, bodies=99_999))
    assert (answer.status_code, "5,500 bytes" in error(answer)) == (413, True)
    assert post("/predict", b"x" * 6000, limits=Limits(body=5_500)).status_code == 413
    assert post("/predict", b"x" * 5500, limits=Limits(body=5_500)).status_code == 415


def test_health_and_readiness_are_said() -> None:
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get("/v2/models/known/ready").json() == {"name": "known", "ready": True}
    assert get("/v2/models/known/versions/1/ready").status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/known/versions/2", "/v2/models/other/ready", "/nix"])
def test_what_is_not_there_is_said_in_a_line(path: str) -> None:
    answer = get(path)
    assert answer.status_code == 404
    error(answer)


def test_another_method_is_refused_and_the_right_one_named() -> None:
    answer = get("/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    error(answer)


@pytest.mark.parametrize("query", ["top=0", "top=x", "top=1e9", "map=maybe"])
def test_a_query_that_makes_no_sense_is_refused_in_a_line(query: str) -> None:
    answer = post(f"/predict?{query}", gray(1))
    assert answer.status_code == 422
    assert query.partition("=")[0] in error(answer)


OPEN = ["/", "/v2/health/live", "/v2/health/ready"]
CLOSED = ["/v2", "/v2/models/known", "/v2/models/known/ready", "/metrics", "/openapi.json", "/predict", "/nix"]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("said", [None, "Bearer wrong", "Bearer", "Basic 0123456789abcdef0123", "0123456789abcdef0123"])
def test_nothing_is_answered_without_the_token(path: str, said: str | None) -> None:
    answer = get(path, headers={"authorization": said} if said else {}, token=TOKEN)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "known" not in answer.text
    error(answer)


@pytest.mark.parametrize("path", OPEN)
def test_the_page_and_health_need_no_token_and_tell_nothing(path: str) -> None:
    answer = get(path, token=TOKEN)
    assert answer.status_code == 200
    assert "known" not in answer.text


@pytest.mark.parametrize("path", [path for path in CLOSED if path not in ("/predict", "/nix")])
def test_the_token_opens_everything(path: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN.text}", "host": "somewhere.example"}
    assert get(path, headers=headers, token=TOKEN).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:1", "127.0.1.1", "127.8.8.8:80", "[::1]:8000", "[::1]", "LOCALHOST"],
)
def test_without_a_token_this_machine_is_answered_by_its_own_names(host: str) -> None:
    assert get("/v2", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.evil.example",
        "[::2]",
        "127.1.evil",
    ],
)
def test_without_a_token_other_names_are_refused(host: str) -> None:
    answer = get("/v2", headers={"host": host})
    assert answer.status_code == 403
    error(answer)


def test_the_name_that_was_listened_at_is_answered_and_no_other() -> None:
    async def ask(client: httpx.AsyncClient, host: str) -> int:
        return (await client.get("/v2", headers={"host": host})).status_code

    async def within() -> list[int]:
        transport = httpx.ASGITransport(application(known(), Limits(), host="Laptop"))
        async with httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            return [await ask(client, host) for host in ("laptop:8000", "laptop", "laptop.evil.example", "10.0.0.1")]

    assert asyncio.run(within()) == [200, 200, 403, 403]


@pytest.mark.parametrize("name", ["a/b", "", "a b", "é", "..", "a\n", "a?b"])
def test_a_name_that_no_address_can_have_is_refused_in_a_line(name: str) -> None:
    with pytest.raises(UserError, match=r"--name .*is no name for addresses"), opened("mobilenet_v2", called=name):
        raise AssertionError("opened")
    assert name_in_addresses("x", "My_model-1.0") == "My_model-1.0"


def test_pages_of_other_sites_are_refused() -> None:
    assert get("/v2", headers={"origin": "http://evil.example"}).status_code == 403
    assert get("/v2", headers={"origin": "null"}).status_code == 403
    assert get("/v2", headers={"origin": HOME}).status_code == 200


def test_a_server_that_goes_down_refuses_but_still_says_how_it_is() -> None:
    state = State(draining=True)
    answer = post("/predict", gray(1), state=state)
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["connection"]) == (503, "5", "close")
    error(answer)
    ready = get("/v2/health/ready", state=state)
    assert (ready.status_code, ready.json()) == (503, {"ready": False})
    assert get("/v2/health/live", state=state).status_code == 200
    assert get("/metrics", state=state).status_code == 200


def test_metrics_count_requests_images_and_refusals_of_this_application_alone() -> None:
    async def ask(client: httpx.AsyncClient) -> str:
        for value in (1, 2, 3):
            await client.post("/predict", content=gray(value))
        await client.post("/predict", content=b"")
        await client.get("/nix")
        await client.get("/also-nix")
        return (await client.get("/metrics")).text

    for _ in range(2):
        text = asking(known(), ask)
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert lines['triscale_requests_total{route="/predict",status="200"}'] == "3.0"
        assert lines['triscale_requests_total{route="/predict",status="415"}'] == "1.0"
        assert lines['triscale_requests_total{route="other",status="404"}'] == "2.0"
        assert lines['triscale_batch_images_sum{what="logits"}'] == "3.0"
        assert lines["triscale_images_inside"] == "0.0"
        assert lines["triscale_body_bytes"] == "0.0"
        assert lines["triscale_requests_begun"] == "1.0"  # this one
        assert "nix" not in text


def test_a_fault_of_the_network_is_one_line_and_the_next_request_is_answered() -> None:
    def faulty(x: torch.Tensor) -> torch.Tensor:
        if (x > 0.99).any():
            raise RuntimeError("secret")
        return brightness(x)

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", content=gray(value)) for value in (255, 10, 255, 20)))

    first, second, third, fourth = asking(known(faulty), ask, limits=Limits(wait=1.0, batch=4))
    for answer in (first, third):
        assert answer.status_code == 500
        assert "secret" not in error(answer)
    assert (said(second), said(fourth)) == (pytest.approx(bright(10)), pytest.approx(bright(20)))


def test_a_request_past_its_deadline_is_answered_so_and_never_computed() -> None:
    gate = Gate()

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = asyncio.create_task(client.post("/predict", content=gray(1)))
        while not gate.entered.is_set():
            await asyncio.sleep(0.001)
        second = await client.post("/predict", content=gray(2))
        gate.open.set()
        return [await first, second, await client.post("/predict", content=gray(3))]

    first, second, third = asking(known(gate), ask, limits=Limits(deadline=0.3))
    assert (first.status_code, second.status_code) == (504, 504)
    assert "in time" in error(second)
    assert said(third) == pytest.approx(bright(3))
    assert gate.computed == [1, 3]


def test_every_answer_forbids_guessing_and_keeping() -> None:
    for answer in (get("/"), get("/nix"), post("/predict", gray(1)), get("/v2", headers={"host": "evil.example"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_what_can_be_asked_is_described_and_no_page_comes_from_elsewhere() -> None:
    paths = get("/openapi.json").json()["paths"]
    assert {"/predict", "/v2", "/v2/models/{name}/infer", "/v2/health/ready", "/metrics"} <= set(paths)
    assert get("/docs").status_code == get("/redoc").status_code == 404


@pytest.mark.parametrize(
    ("name", "address"),
    [("runs/mine", "mine"), ("a b/c d", "c-d"), ("x/model.safetensors", "model"), ("größe", "gr-e"), ("/", "model")],
)
def test_a_model_is_called_by_the_last_part_of_its_place(name: str, address: str) -> None:
    assert addressable(name) == address


@pytest.mark.parametrize(
    "wrong", [{"body": 0}, {"queue": -1}, {"batch": 9, "queue": 8}, {"wait": -1.0}, {"body": 10**9}]
)
def test_a_limit_that_lets_nothing_through_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--"):
        Limits(**wrong)
