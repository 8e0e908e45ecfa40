"""What the zoo, rounding, fitting to an input and the resolver promise."""

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from published import FAMILY, NETWORKS
from specs import SKIPS, architectures

from triscale.arch import (
    ZOO,
    Architecture,
    Conv,
    MBConv,
    Skip,
    SpecError,
    Stage,
    Stem,
    adapt,
    multiply,
    published,
    resolve,
    round_channels,
    round_repeats,
    to_json,
)
from triscale.arch.rounding import smallest_resolution


def last_map(architecture: Architecture) -> int:
    side = min(architecture.resolution)
    for _, stride in architecture.strides():
        side = -(-side // stride)
    return side


def test_the_zoo_holds_the_published_families_each_with_its_source() -> None:
    assert set(ZOO) == {
        *(f"efficientnet_b{i}" for i in range(9)),
        "efficientnet_l2",
        *(f"efficientnet_lite{i}" for i in range(5)),
        "mobilenet_v1",
        "mobilenet_v2",
        "mnasnet_a1",
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    }
    for name, entry in ZOO.items():
        assert published(name).name == name
        assert "arXiv" in entry.source or "official" in entry.source


@pytest.mark.parametrize("name", FAMILY)
def test_the_efficientnets_have_the_official_codes_repeats_channels_and_pixels(name: str) -> None:
    architecture, official = published(name), NETWORKS[name]
    assert [stage.repeats for stage in architecture.stages] == official["repeats"]
    assert [stage.channels for stage in architecture.stages] == official["channels"]
    assert architecture.stem.channels == official["stem"]
    assert architecture.head.channels == official["head"]
    assert architecture.resolution == (official["resolution"], official["resolution"])
    assert architecture.head.dropout == official["dropout"]


def test_b0_is_table_1_of_the_paper() -> None:
    b0 = published("efficientnet_b0")
    blocks = [stage.block for stage in b0.stages]
    assert all(isinstance(block, MBConv) and block.squeeze_excite == 0.25 for block in blocks)
    assert [(block.kernel, block.expansion) for block in blocks if isinstance(block, MBConv)] == [
        (3, 1), (3, 6), (5, 6), (3, 6), (5, 6), (5, 6), (3, 6),
    ]  # fmt: skip
    assert [stride for _, stride in b0.strides()] == [2, 1, 1, 2, 2, 2, 1, 2, 1]
    assert last_map(b0) == 7


def test_lite_has_no_squeeze_excite_and_only_bounded_activations() -> None:
    for i in range(5):
        lite = published(f"efficientnet_lite{i}")
        for stage in lite.stages:
            assert isinstance(stage.block, MBConv)
            assert stage.block.squeeze_excite == 0
            assert stage.block.activation == "relu6"


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        # Literal results of the official round_filters for B0's columns.
        (32, 1.1, 32), (16, 1.1, 16), (24, 1.1, 24), (40, 1.1, 48), (80, 1.1, 88), (112, 1.1, 120), (192, 1.1, 208),
        (320, 1.1, 352), (1280, 1.1, 1408), (32, 1.2, 40), (16, 1.2, 24), (24, 1.2, 32), (40, 1.2, 48), (80, 1.2, 96),
        (112, 1.2, 136), (192, 1.2, 232), (32, 1.4, 48), (24, 1.4, 32), (40, 1.4, 56), (112, 1.4, 160), (16, 4.3, 72),
        (32, 4.3, 136), (320, 4.3, 1376), (16, 0.5, 8), (24, 0.5, 16), (8, 0.1, 8), (10, 1.0, 16), (11, 1.0, 16),
        (1, 1.0, 8),
    ],
)  # fmt: skip
def test_channels_round_as_the_official_code_does(channels: int, width: float, expected: int) -> None:
    assert round_channels(channels * width) == expected


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"),
    [
        (1, 1.1, 2), (2, 1.1, 3), (3, 1.1, 4), (4, 1.1, 5), (4, 1.2, 5), (3, 1.4, 5), (4, 1.4, 6), (3, 1.8, 6),
        (4, 1.8, 8), (4, 2.2, 9), (4, 2.6, 11), (4, 3.1, 13), (3, 3.6, 11), (4, 5.3, 22), (3, 0.5, 2), (1, 0.01, 1),
        (5, 1.2, 6), (10, 1.1, 11),
    ],
)  # fmt: skip
def test_repeats_round_up(repeats: int, depth: float, expected: int) -> None:
    assert round_repeats(repeats, depth) == expected


@given(st.floats(0.01, 60_000), st.sampled_from((1, 4, 8, 32)))
def test_rounded_channels_are_multiples_and_never_more_than_a_tenth_below(channels: float, divisor: int) -> None:
    rounded = round_channels(channels, divisor)
    assert rounded % divisor == 0
    assert rounded >= max(divisor, 0.9 * channels)
    assert rounded <= max(divisor, channels + divisor)


@given(st.floats(0.01, 60_000), st.floats(0.01, 60_000), st.sampled_from((1, 4, 8, 32)))
def test_rounding_keeps_the_order_of_channels(one: float, other: float, divisor: int) -> None:
    low, high = sorted((one, other))
    assert round_channels(low, divisor) <= round_channels(high, divisor)


def test_multipliers_of_one_change_nothing_even_channels_that_are_no_multiple() -> None:
    odd = Architecture((Stage(Conv(), 13, 2),), stem=Stem(7))
    assert multiply(odd, 1.0, 1.0, 1.0) == odd


@pytest.mark.parametrize("what", ["depth", "width", "resolution"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e300, 1e9, 1e6, 10**400])
def test_multipliers_that_no_network_can_have_are_named(what: str, value: float) -> None:
    with pytest.raises(SpecError) as caught:
        multiply(published("efficientnet_b0"), **{what: value})
    assert any(word in str(caught.value) for word in (what, "repeats", "channels"))
    assert len(str(caught.value)) < 200


@given(architectures(), *[st.floats(1e-9, 1.0)] * 3)
@settings(max_examples=100, deadline=None)
def test_shrinking_always_leaves_a_network(network: Architecture, depth: float, width: float, pixels: float) -> None:
    small = multiply(network, depth, width, pixels)
    assert all(stage.repeats >= 1 for stage in small.stages)
    assert all(side <= own for side, own in zip(small.resolution, network.resolution, strict=True))
    for before, after in zip(network.stages, small.stages, strict=True):
        assert after.deepens == before.deepens
        if not before.deepens:
            assert after.repeats == before.repeats


def test_what_a_family_keeps_fixed_is_kept() -> None:
    lite = multiply(published("efficientnet_lite0"), depth=2, width=2)
    assert (lite.stem.channels, lite.head.channels) == (32, 1280)
    assert [stage.repeats for stage in lite.stages] == [1, 4, 4, 6, 6, 8, 1]
    mobile = published("mobilenet_v2")
    assert multiply(mobile, width=0.5).head.channels == 1280
    assert multiply(mobile, width=1.4).head.channels == 1792


@given(architectures())
@settings(max_examples=100, deadline=None)
def test_the_smallest_resolution_is_valid_and_one_pixel_less_is_not(architecture: Architecture) -> None:
    smallest = smallest_resolution(architecture)
    sized = {
        name: getattr(architecture, name) for name in ("stages", "stem", "head", "padding", "norm", "stochastic_depth")
    }
    Architecture(**sized, resolution=(smallest, smallest))
    if smallest > 1:
        with pytest.raises(SpecError, match="empties it"):
            Architecture(**sized, resolution=(smallest, smallest - 1))


SIDES = (16, 17, 20, 24, 28, 31, 32, 33, 48, 64, 96, 100, 127, 128, 160, 224, 225, 320, 512, 1024)


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_network_fits_images_from_16_to_1024_pixels(name: str) -> None:
    own = published(name)
    for height in SIDES:
        for width in (height, 16, 1024):
            for channels in (1, 3, 7):
                fitted = adapt(own, resolution=(height, width), channels=channels, classes=10)
                assert fitted.resolution == (height, width)
                assert fitted.channels == channels
                assert fitted.classes == 10
                assert last_map(fitted) >= min(4, last_map(own))
                assert [stage.channels for stage in fitted.stages] == [stage.channels for stage in own.stages]
                kept = [stride for _, stride in fitted.strides()]
                assert all(now in (1, was) for now, (_, was) in zip(kept, own.strides(), strict=True))


@pytest.mark.parametrize("name", ZOO)
def test_a_network_is_unchanged_at_its_own_resolution_and_keeps_all_strides_above_it(name: str) -> None:
    own = published(name)
    assert adapt(own, resolution=own.resolution) == own
    assert adapt(own) == own
    larger = adapt(own, resolution=(1024, 2048))
    assert list(larger.strides()) == list(own.strides())


def test_b0_at_28_pixels_keeps_its_last_three_strides_and_a_last_map_of_four() -> None:
    small = adapt(published("efficientnet_b0"), resolution=(28, 28))
    assert [stride for _, stride in small.strides()] == [1, 1, 1, 1, 2, 2, 1, 2, 1]
    assert last_map(small) == 4


def test_a_resnet_on_small_images_has_a_3x3_stem_without_stride_and_pooling() -> None:
    small = adapt(published("resnet50"), resolution=(32, 32), classes=10)
    assert (small.stem.kernel, small.stem.stride, small.stem.pool) == (3, 1, 1)
    assert last_map(small) == 4


@given(architectures(), st.integers(16, 1024), st.integers(16, 1024))
@settings(max_examples=150, deadline=None)
def test_any_network_fits_any_image_from_16_pixels(architecture: Architecture, height: int, width: int) -> None:
    fitted = adapt(architecture, resolution=(height, width))
    assert last_map(fitted) >= min(4, last_map(architecture))
    assert adapt(architecture, resolution=architecture.resolution) == architecture


def test_on_another_image_no_last_map_is_one_pixel() -> None:
    deep = Architecture(tuple(Stage(MBConv(), 8, 1, 2) for _ in range(4)), resolution=(32, 32))
    assert last_map(deep) == 1
    assert [stride for _, stride in adapt(deep, resolution=(16, 16)).strides()] == [1, 1, 1, 2, 2, 2]
    assert adapt(deep, classes=7) == replace(deep, head=replace(deep.head, classes=7))


def test_adapting_to_nothing_is_a_spec_error() -> None:
    with pytest.raises(SpecError, match="resolution must be from 1"):
        adapt(published("efficientnet_b0"), resolution=(0, 16))
    with pytest.raises(SpecError, match="classes must be from 1"):
        adapt(published("efficientnet_b0"), classes=0)


@pytest.mark.parametrize("skip", ["identity", "pool", "none"])
def test_two_networks_that_compute_differently_are_not_equal(skip: Skip) -> None:
    one = Architecture((Stage(Conv(), 16, 2, skip=skip),), name="one")
    assert one == Architecture((Stage(Conv(), 16, 2, skip=skip),), name="other")
    assert hash(one) == hash(Architecture((Stage(Conv(), 16, 2, skip=skip),), name="other"))
    others = [other for other in SKIPS if other != skip]
    assert all(one != Architecture((Stage(Conv(), 16, 2, skip=other),)) for other in others)
    assert one != Architecture((Stage(Conv(), 16, 2, skip=skip),), padding="symmetric")


def safetensors(path: Path, header: object) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_a_network_is_found_by_zoo_name_json_file_run_directory_and_model_file(tmp_path: Path) -> None:
    small = adapt(published("mobilenet_v2"), resolution=(32, 48), classes=7)
    assert resolve("mobilenet_v2") == published("mobilenet_v2")
    (tmp_path / "net.json").write_text(to_json(small), encoding="utf-8")
    (tmp_path / "net").write_text(to_json(small), encoding="utf-8")
    model = safetensors(tmp_path / "model.safetensors", {"__metadata__": {"architecture": to_json(small)}})
    for name in (tmp_path / "net.json", str(tmp_path / "net"), tmp_path, model):
        assert resolve(name) == small


def test_a_name_that_is_nothing_is_answered_with_names_close_to_it() -> None:
    with pytest.raises(SpecError) as caught:
        resolve("efficientnet_b9")
    assert "'efficientnet_b9'" in str(caught.value)
    assert "did you mean efficientnet_b8" in str(caught.value)
    assert "triscale models" in str(caught.value)
    with pytest.raises(SpecError, match="'b0' is not in the zoo; it has efficientnet_b0"):
        published("b0")


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"a directory without model\.safetensors") as caught:
        resolve(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a\0b.json", "", "missing.json", "missing.safetensors"])
def test_no_name_at_all_escapes_as_another_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        resolve(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_a_spec_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        with pytest.raises(SpecError, match="Permission denied"):
            resolve(closed / "network.json")
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 3) + b"{}}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", 19) + b'{"__metadata__": 1}',
        struct.pack("<Q", 39) + b'{"__metadata__": {"architecture": [1]}}',
        struct.pack("<Q", 24) + bytes(range(24)),
    ],
    ids=["empty", "short", "too long", "no JSON", "list", "no metadata", "deep", "number", "list inside", "bytes"],
)
def test_a_model_file_that_triscale_did_not_write_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="no architecture in its metadata") as caught:
        resolve(path)
    assert str(path) in str(caught.value)


def test_a_wrong_architecture_inside_a_model_file_names_the_file(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "model.safetensors", {"__metadata__": {"architecture": '{"schema": 9}'}})
    with pytest.raises(SpecError, match="schema 9 is not known") as caught:
        resolve(path)
    assert str(caught.value).startswith(str(path))
