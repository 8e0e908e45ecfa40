"""What `read` promises about IDX files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bad_data import complaint

from triscale.data import read
from triscale.errors import UserError

Bytes = npt.NDArray[np.uint8]


def idx(values: Bytes) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(path: Path, values: Bytes) -> None:
    content = idx(values)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def random_pictures(n: int, *shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def mnist(root: Path, suffix: str = "", joint: str = "-", n: int = 60, test: int = 20) -> tuple[Bytes, Bytes]:
    pictures, labels = random_pictures(n, 9, 7), (np.arange(n) % 3).astype(np.uint8)
    write(root / f"train-images{joint}idx3-ubyte{suffix}", pictures)
    write(root / f"train-labels{joint}idx1-ubyte{suffix}", labels)
    if test:
        write(root / f"t10k-images{joint}idx3-ubyte{suffix}", random_pictures(test, 9, 7, seed=1))
        write(root / f"t10k-labels{joint}idx1-ubyte{suffix}", (np.arange(test) % 3).astype(np.uint8))
    return pictures, labels


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("joint", ["-", "."])
def test_mnist_files_come_back_pixel_for_pixel(tmp_path: Path, suffix: str, joint: str) -> None:
    pictures, labels = mnist(tmp_path, suffix, joint)
    data = read(tmp_path)
    assert (data.kind, data.classes, data.channels, data.size, data.uniform) == (
        "idx",
        ("0", "1", "2"),
        1,
        (9, 7),
        True,
    )
    assert [len(split) for split in data.splits().values()] == [54, 6, 20]
    for split in (data.train, data.val):
        held = split.array()
        assert held is not None
        assert held.shape == (len(split), 9, 7, 1)
        for i, name in enumerate(split.names):
            part, number = name.split("/")
            assert part == "train"
            assert np.array_equal(split.pixels(i)[:, :, 0], pictures[int(number)])
            assert split.labels[i] == labels[int(number)]


def test_gzip_or_not_is_the_same_data(tmp_path: Path) -> None:
    for folder, suffix in (("plain", ""), ("zipped", ".gz")):
        (tmp_path / folder).mkdir()
        mnist(tmp_path / folder, suffix)
    assert read(tmp_path / "plain").fingerprint == read(tmp_path / "zipped").fingerprint


def test_colour_and_class_names_and_no_test(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx4-ubyte", random_pictures(40, 5, 6, 3))
    write(tmp_path / "train-labels-idx1-ubyte", (np.arange(40) % 2 + 1).astype(np.uint8))
    assert read(tmp_path).classes == ("1", "2")
    (tmp_path / "classes.txt").write_text("\nقط\n狗\n", encoding="utf-8")
    data = read(tmp_path)
    assert (data.channels, data.classes) == (3, ("قط", "狗"))
    assert [len(split) for split in data.splits().values()] == [28, 4, 8]
    assert set(data.test.labels.tolist()) == {0, 1}


def test_copies_in_test_are_counted(tmp_path: Path) -> None:
    pictures, _ = mnist(tmp_path)
    write(tmp_path / "t10k-images-idx3-ubyte", np.concatenate([pictures[:3], random_pictures(17, 9, 7, seed=1)]))
    assert read(tmp_path).leaks == 3


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    pictures, labels = mnist(tmp_path, suffix)
    at = tmp_path / f"train-images-idx3-ubyte{suffix}"

    def put(content: bytes) -> None:
        at.write_bytes(gzip.compress(content) if suffix else content)

    good = idx(pictures)
    put(b"\0\0\x0d\x03" + good[4:])
    complaint(tmp_path, at.name, "00000d03")
    put(good[:2])
    complaint(tmp_path, at.name, "begins with")
    put(good[:9])
    complaint(tmp_path, at.name, "inside its header")
    put(good[:-5])
    complaint(tmp_path, at.name)
    put(good + b"x")
    complaint(tmp_path, at.name)
    put(struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**15, 2**15) + b"xx")
    complaint(tmp_path, at.name, "claims")
    at.write_bytes(at.read_bytes()[:15])
    complaint(tmp_path, at.name)
    put(idx(labels))
    complaint(tmp_path, at.name, "00000801")
    put(idx(pictures[:50]))
    complaint(tmp_path, "50 pictures", "60 labels")


def test_a_gzip_with_a_broken_body_is_named(tmp_path: Path) -> None:
    mnist(tmp_path, ".gz")
    at = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(at.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20] = bytes(20)
    at.write_bytes(content)
    complaint(tmp_path, at.name, "fetch")
    at.write_bytes(b"not gzip at all")
    complaint(tmp_path, at.name, "damaged")


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    mnist(tmp_path)
    write(tmp_path / "t10k-labels-idx1-ubyte", np.full(20, 9, np.uint8))
    complaint(tmp_path, "label 9", "not in train")
    write(tmp_path / "t10k-images-idx3-ubyte", random_pictures(20, 8, 8))
    complaint(tmp_path, "(9, 7, 1)", "(8, 8, 1)")
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    complaint(tmp_path, "t10k-images-idx3-ubyte")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    complaint(tmp_path, "train-labels-idx1-ubyte")


def test_shapes_that_are_no_pictures(tmp_path: Path) -> None:
    mnist(tmp_path, test=0)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    write(tmp_path / "train-images-idx4-ubyte", random_pictures(60, 4, 4, 2))
    complaint(tmp_path, "2 channels")
    write(tmp_path / "train-images-idx4-ubyte", random_pictures(60, 0, 4, 3))
    complaint(tmp_path, "0×4")


def test_one_class(tmp_path: Path) -> None:
    mnist(tmp_path, test=0)
    write(tmp_path / "train-labels-idx1-ubyte", np.zeros(60, np.uint8))
    complaint(tmp_path, "one class")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb\n", "label 2"),
        ("a\nb\na\n", "'a' twice"),
        ("\u00e9\nb\ne\u0301\n", "'\u00e9' twice"),
        ("a\nb\nc\nd\n", "'d'"),
        ("a\n\nc\n", "line 2"),
    ],
)
def test_class_names_must_agree_with_labels(tmp_path: Path, text: str, words: str) -> None:
    mnist(tmp_path)
    (tmp_path / "classes.txt").write_text(text)
    complaint(tmp_path, "classes.txt", words)


def test_test_files_alone_are_read_where_there_is_nothing_to_learn(tmp_path: Path) -> None:
    mnist(tmp_path)
    for path in tmp_path.glob("train-*"):
        path.unlink()
    complaint(tmp_path, "lacks 'train-images-idx3-ubyte[.gz]'")
    data = read(tmp_path, seed=None)
    assert (len(data.train), len(data.val), len(data.test)) == (0, 0, 20)
    assert data.classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")  # not every class has to be tested
    assert read(tmp_path, seed=None).classes == ("a", "b", "c")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="no name for label 2"):
        read(tmp_path, seed=None)


def test_one_class_is_read_where_there_is_nothing_to_learn(tmp_path: Path) -> None:
    mnist(tmp_path)
    write(tmp_path / "train-labels-idx1-ubyte", np.zeros(60, np.uint8))
    write(tmp_path / "t10k-labels-idx1-ubyte", np.full(20, 4, np.uint8))
    assert read(tmp_path, seed=None).classes == ("0", "4")
    write(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(20, np.uint8))
    assert read(tmp_path, seed=None).classes == ("0",)


def test_half_a_split_is_refused_also_where_there_is_nothing_to_learn(tmp_path: Path) -> None:
    mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="lacks 'train-labels"):
        read(tmp_path, seed=None)
