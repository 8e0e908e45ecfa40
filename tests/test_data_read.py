"""What `read` promises about layouts, splits and fingerprints."""

import csv
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from triscale.data import Data, read
from triscale.data.splitting import carve


def picture(path: Path, value: int, size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, value // 256, 7)).save(path)
    return path


def class_folders(root: Path, classes: Sequence[str], n: int, start: int = 0) -> Path:
    for k, label in enumerate(classes):
        for i in range(n):
            picture(root / label / f"{i:02d}.png", start + k * n + i)
    return root


def digest_of_tree(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(root)} {status.st_mode} {status.st_mtime_ns}".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def names(data: Data) -> dict[str, tuple[str, ...]]:
    return {split: images.names for split, images in data.splits().items()}


def test_class_folders_are_split_by_seed_in_stated_shares(tmp_path: Path) -> None:
    data = read(class_folders(tmp_path, ["cat", "dog"], 20))
    assert (data.kind, data.classes, data.channels, data.size, data.uniform) == (
        "folder",
        ("cat", "dog"),
        3,
        (5, 6),
        True,
    )
    assert data.counts() == {
        "train": {"cat": 14, "dog": 14},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 4, "dog": 4},
    }
    assert names(data) == names(read(tmp_path)), "the same seed splits the same way"
    assert names(data) != names(read(tmp_path, seed=1)), "another seed splits another way"
    flat = [name for split in names(data).values() for name in split]
    assert len(flat) == len(set(flat)) == 40
    assert data.train.labels.dtype == np.int64
    assert [data.classes[label] for label in data.val.labels] == [name.split("/")[0] for name in data.val.names]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders_are_kept_and_classes_matched_by_name(tmp_path: Path, val: str) -> None:
    class_folders(tmp_path / "train", ["ant", "bee", "cow"], 3)
    class_folders(tmp_path / val, ["bee", "cow"], 2, 100)
    class_folders(tmp_path / "test", ["cow"], 1, 200)
    (tmp_path / "notes").mkdir()
    data = read(tmp_path)
    assert data.classes == ("ant", "bee", "cow")
    assert data.counts()["val"] == {"ant": 0, "bee": 2, "cow": 2}
    assert data.test.names == ("test/cow/00.png",)
    assert data.test.labels.tolist() == [2]


def test_test_alone_leaves_val_to_be_carved_from_train(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["a", "b"], 10)
    class_folders(tmp_path / "test", ["a", "b"], 2, 100)
    data = read(tmp_path)
    assert data.counts()["val"] == {"a": 1, "b": 1}
    assert all(name.startswith("train/") for name in data.val.names)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = read(class_folders(tmp_path, ["car", "train"], 4))
    assert data.classes == ("car", "train")


def test_small_classes_keep_their_pictures_in_train(tmp_path: Path) -> None:
    class_folders(tmp_path, ["many"], 10)
    class_folders(tmp_path, ["one"], 1, 50)
    class_folders(tmp_path, ["two"], 2, 60)
    class_folders(tmp_path, ["three"], 3, 70)
    counts = read(tmp_path).counts()
    assert {split: (c["one"], c["two"], c["three"]) for split, c in counts.items()} == {
        "train": (1, 2, 1),
        "val": (0, 0, 1),
        "test": (0, 0, 1),
    }


def test_names_in_any_script(tmp_path: Path) -> None:
    classes = ["قطط", "狗", "🦊 fox", "été"]
    for k, label in enumerate(classes):
        for i in range(4):
            picture(tmp_path / label / f"صورة-{i}-图片.png", k * 4 + i)
    data = read(tmp_path)
    assert set(data.classes) == set(classes)
    assert sum(len(split) for split in data.splits().values()) == 16


def test_one_spelling_for_composed_and_decomposed_names(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["e\u0301te\u0301", "b"], 3)
    class_folders(tmp_path / "test", ["\u00e9t\u00e9"], 1, 30)
    assert read(tmp_path).counts()["test"]["\u00e9t\u00e9"] == 1


def test_suffixes_count_in_any_case_and_other_files_are_counted_not_read(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a", "b"], 3)
    (tmp_path / "a" / "00.png").rename(tmp_path / "a" / "00.PNG")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "readme.md").write_text("x")
    (tmp_path / "a" / ".hidden.png").write_text("x")
    (tmp_path / ".git").mkdir()
    picture(tmp_path / "b" / "deeper" / "x.png", 99)
    data = read(tmp_path)
    assert data.ignored == 2
    assert sum(data.counts()[split]["a"] for split in ("train", "val", "test")) == 3
    assert any("b/deeper/x.png" in split for split in names(data).values())


def test_links_in_a_circle_come_to_an_end_and_relabel_nothing(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a", "b"], 4)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "sister").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "here").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b" / "self")
    picture(tmp_path.parent / f"{tmp_path.name}-elsewhere" / "x.png", 77)
    (tmp_path / "b" / "linked.png").symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere" / "x.png")
    data = read(tmp_path)
    totals = {label: sum(c[label] for c in data.counts().values()) for label in data.classes}
    assert totals == {"a": 4, "b": 5}


def write_manifest(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_manifest_paths_are_relative_to_it_and_labels_are_words(tmp_path: Path) -> None:
    rows = [["path", "label", "split"]]
    for i in range(12):
        picture(tmp_path / "pics" / f"{i}, odd.png", i)
        rows.append([f"pics/{i}, odd.png", str(i % 2 + 7), "test" if i < 2 else "train"])
    data = read(write_manifest(tmp_path / "list.csv", rows))
    assert (data.kind, data.classes) == ("manifest", ("7", "8"))
    assert set(data.test.names) == {"pics/0, odd.png", "pics/1, odd.png"}
    assert data.counts()["val"] == {"7": 1, "8": 1}


def test_manifest_without_splits_is_carved(tmp_path: Path) -> None:
    rows = [["path", "label"]] + [[f"{i}.png", "ab"[i % 2]] for i in range(20)]
    for i in range(20):
        picture(tmp_path / f"{i}.png", i)
    data = read(write_manifest(tmp_path / "list.csv", rows))
    assert [len(split) for split in data.splits().values()] == [14, 2, 4]


def test_a_manifest_without_train_is_read_where_there_is_nothing_to_learn(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a"], 3)
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    manifest = write_manifest(tmp_path / "m.csv", [("path", "label", "split"), *((p, "a", "test") for p in paths)])
    data = read(manifest, seed=None)
    assert (data.classes, names(data)) == (("a",), {"train": (), "val": (), "test": tuple(paths)})


def test_the_users_files_are_left_as_they_were(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a", "b"], 4)
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    before = digest_of_tree(tmp_path)
    data = read(tmp_path, on_bad="skip")
    data.train.pixels(0)
    assert digest_of_tree(tmp_path) == before


def test_fingerprint_survives_copying_and_sees_every_change(tmp_path: Path) -> None:
    first = class_folders(tmp_path / "one", ["a", "b"], 5)
    second = Path(shutil.copytree(first, tmp_path / "elsewhere" / "two"))
    whole = read(first).fingerprint
    assert read(second, threads=1).fingerprint == whole
    assert read(first, seed=1).fingerprint != whole, "splits are part of it"
    (second / "a" / "00.png").rename(second / "b" / "moved.png")
    assert read(second).fingerprint != whole, "labels are part of it"
    picture(first / "a" / "00.png", 999)
    assert read(first).fingerprint != whole, "pixels are part of it"


def test_copies_across_given_splits_are_counted(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["a", "b"], 5)
    class_folders(tmp_path / "val", ["a", "b"], 2, 100)
    class_folders(tmp_path / "test", ["a", "b"], 2, 200)
    assert (read(tmp_path).leaks, read(tmp_path).duplicates) == (0, 0)
    shutil.copy(tmp_path / "train" / "a" / "00.png", tmp_path / "test" / "a" / "copy.png")
    shutil.copy(tmp_path / "val" / "a" / "00.png", tmp_path / "test" / "a" / "copy2.png")
    shutil.copy(tmp_path / "train" / "b" / "00.png", tmp_path / "val" / "b" / "copy.png")
    assert (read(tmp_path).leaks, read(tmp_path).duplicates) == (2, 1)


def test_copies_stay_together_when_splits_are_carved(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a", "b"], 10)
    for i in range(10):
        shutil.copy(tmp_path / "a" / f"{i:02d}.png", tmp_path / "a" / f"copy{i}.png")
    for seed in range(5):
        data = read(tmp_path, seed=seed)
        assert (data.leaks, data.duplicates) == (0, 0)
        assert data.counts()["test"]["a"] == 4


def test_progress_is_told_of_every_file(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    read(class_folders(tmp_path, ["a", "b"], 3), progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 6) for i in range(6)]


def test_real_digits_come_back_pixel_for_pixel(tmp_path: Path) -> None:
    digits = load_digits()
    for i in range(120):
        path = tmp_path / str(digits.target[i]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(path)
    data = read(tmp_path)
    assert (data.channels, data.size, len(data.classes)) == (1, (8, 8), 10)
    for split in data.splits().values():
        for i, name in enumerate(split.names):
            number = int(name.split("/")[1][:-4])
            assert np.array_equal(split.pixels(i)[:, :, 0], digits.images[number] * 15)
            assert data.classes[split.labels[i]] == str(digits.target[number])


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    class_folders(tmp_path, ["a", "b"], 3)
    code = "import sys; from triscale.data import read; read(sys.argv[1]); assert 'torch' not in sys.modules"
    source = Path(__file__).parents[1] / "src"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, env={**os.environ, "PYTHONPATH": str(source)}
    )


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    brought=st.sampled_from(["none", "test", "val", "both"]),
    shuffle=st.randoms(use_true_random=False),
)
def test_carved_splits_are_stratified_disjoint_and_order_free(
    sizes: list[int], seed: int, brought: str, shuffle: "object"
) -> None:
    labels = [k for k, n in enumerate(sizes) for _ in range(n)]
    listed = [f"{k}/{i}" for i, k in enumerate(labels)]
    splits = ["train"] * len(labels)
    for split in {"none": [], "both": ["test", "val"]}.get(brought, [brought]):
        labels.append(0)
        listed.append(f"given-{split}")
        splits.append(split)
    content = [name.encode() for name in listed]
    result = carve(splits, np.array(labels), listed, content, seed)
    assert all(new == old for new, old in zip(result, splits, strict=True) if old != "train")
    for k, n in enumerate(sizes):
        of = [r for r, label, old in zip(result, labels, splits, strict=True) if label == k and old == "train"]
        tests = 0 if n < 3 or brought in ("test", "both") else max(1, int(0.2 * n + 0.5))
        vals = 0 if n < 3 or brought in ("val", "both") else max(1, int(0.1 * (n - tests) + 0.5))
        assert (of.count("test"), of.count("val")) == (tests, vals)
        assert of.count("train") >= 1
    order = list(range(len(labels)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    again = carve(
        [splits[i] for i in order],
        np.array([labels[i] for i in order]),
        [listed[i] for i in order],
        [content[i] for i in order],
        seed,
    )
    assert again == [result[i] for i in order]
