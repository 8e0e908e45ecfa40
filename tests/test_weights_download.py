"""Published weights, fetched by name from a server on this machine, from the command line to a prediction."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign import arrays, write
from PIL import Image
from sklearn.datasets import load_sample_image
from web import Server

from triscale.models import load
from triscale.weights import Weights, catalogue, default_weights, find_weights

NAME = "torchvision/mobilenet_v2.v2"
Triscale = Callable[..., tuple[int, str, str]]


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights that the catalogue lists and the server has; nothing in the cache."""
    server.manners.content = write(tmp_path / "published.pth", arrays("torchvision")).read_bytes()
    digest = hashlib.sha256(server.manners.content).hexdigest()
    known = replace(catalogue()[NAME], url=server.url, sha256=digest[:8], file="weights.pth")
    listed: Mapping[str, Weights] = {**catalogue(), NAME: known}
    monkeypatch.setattr("triscale.weights.published.catalogue", lambda: listed)
    monkeypatch.setattr("triscale.weights.store.catalogue", lambda: listed)
    monkeypatch.setattr("triscale.weights.conventions.catalogue", lambda: listed)
    monkeypatch.setattr("triscale.weights.catalogue", lambda: listed)
    monkeypatch.setenv("TRISCALE_CACHE", str(tmp_path / "cache"))
    assert default_weights("mobilenet_v2") is known
    return known


def test_weights_are_downloaded_by_name_once_and_then_used_by_the_networks_name(
    published: Weights, server: Server, triscale: Triscale, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(load_sample_image("china.jpg")).save(photo)
    code, _, err = triscale("predict", photo, "--model", "mobilenet_v2")
    assert code == 2
    assert f"triscale models download {NAME}" in err
    assert not server.asked  # nothing is fetched that nobody named
    code, out, err = triscale("models", "download", "mobilenet_v2", "--json")
    assert code == 0
    assert Path(json.loads(out)["file"]) == find_weights(published) == tmp_path / "cache" / "weights.pth"
    assert server.url in err
    assert published.licence in err
    code, out, _ = triscale("predict", photo, "--model", "mobilenet_v2", "--json")
    assert code == 0
    assert len(json.loads(out)["predictions"][0]["classes"]) == 5
    triscale("models", "download", NAME)
    assert len(server.asked) == 1
    model = load(NAME)
    assert torch.equal(model.head.classifier.weight, torch.from_numpy(arrays("torchvision")["classifier.1.weight"]))
    assert model.provenance is not None
    assert model.provenance.source == server.url


def test_what_is_not_the_published_file_is_not_kept(
    published: Weights, server: Server, triscale: Triscale, tmp_path: Path
) -> None:
    server.manners.content = b"x" * 1000
    code, _, err = triscale("models", "download", NAME)
    assert code == 1
    assert published.sha256 in err
    assert find_weights(published) is None


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(
    published: Weights, server: Server, triscale: Triscale
) -> None:
    server.manners.drop_after = 1_000_000
    assert triscale("models", "download", NAME)[0] == 1
    assert find_weights(published) is None
    server.manners.drop_after = None
    sent = sum(asked.sent for asked in server.asked)
    assert triscale("models", "download", NAME)[0] == 0
    assert sum(asked.sent for asked in server.asked[-1:]) == len(server.manners.content) - sent
    assert find_weights(published) is not None
