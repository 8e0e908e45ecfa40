import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import four_columns, predictions, random_predictions

from triscale.errors import UserError
from triscale.evaluating import Predictions, Table, measure, read_table

SHARES = st.floats(0, 1, width=32)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


def back(table: Table, folder: Path) -> Table:
    place = folder / "table.csv"
    place.write_bytes(table.to_csv().encode())
    return read_table(place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@given(random_predictions())
def test_a_table_from_a_file_measures_the_same_to_the_last_bit(folder: Path, found: Predictions) -> None:
    read = back(found.table, folder)
    ours, theirs = measure(found.table, resamples=20), measure(read, resamples=20)
    for key, value in ours.to_dict().items():
        if key == "classes":
            occurring = {label: row for label, row in value.items() if row["images"] or row["called"]}
            assert theirs.to_dict()["classes"] == occurring
        elif not key.startswith("top5"):  # a file alone does not say how many classes the model has
            assert theirs.to_dict()[key] == value, key
    for k in range(1, len(found.classes) + 1):
        assert read.top(k) == found.top(k)
    assert read.log_loss() == found.log_loss()


@given(st.lists(SHARES, min_size=1, max_size=20), st.data())
def test_every_probability_is_read_back_exactly(folder: Path, sure: list[float], data: st.DataObject) -> None:
    n = len(sure)
    confidence = np.array(sure, np.float32)
    own = np.minimum(confidence, np.array(data.draw(st.lists(SHARES, min_size=n, max_size=n)), np.float32))
    table = Table(
        tuple(f"{i}" for i in range(n)),
        np.zeros(n, np.int64),
        np.ones(n, np.int64),
        confidence,
        np.full(n, 2),
        own,
        (),
        ("a", "b"),
    )
    read = back(table, folder)
    assert read.confidence.tobytes() == confidence.tobytes()
    assert read.probability is not None
    assert read.probability.tobytes() == own.tobytes()


@given(st.lists(TEXTS, min_size=1, max_size=8, unique=True), st.lists(TEXTS, min_size=2, max_size=4, unique=True))
def test_any_name_and_any_class_survives(folder: Path, names: list[str], classes: list[str]) -> None:
    found = predictions(len(names), len(classes), len(names))
    table = Predictions(tuple(names), found.labels, found.probabilities, tuple(classes)).table
    read = back(table, folder)
    assert read.names == tuple(names)
    assert [read.classes[i] for i in read.labels] == [classes[i] for i in table.labels]
    assert [read.classes[i] for i in read.predicted] == [classes[i] for i in table.predicted]


def test_the_table_names_every_image_its_class_the_answer_and_the_content() -> None:
    found = predictions(5, 3, 0)
    text = found.to_csv()
    assert text.splitlines()[0] == "name,label,predicted,confidence,rank,probability,sha256"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows] == list(found.names)
    assert [row["label"] for row in rows] == [f"c{i}" for i in found.labels]
    assert [row["sha256"] for row in rows] == [digest.hex() for digest in found.digests]


@given(random_predictions())
def test_an_older_table_can_be_read_and_says_what_it_lacks(folder: Path, found: Predictions) -> None:
    (folder / "old.csv").write_text(four_columns(found.to_csv()))
    old = read_table(folder / "old.csv")
    assert old.top() == found.top()
    assert old.digests == ()
    with pytest.raises(UserError, match=r"top-2.*triscale eval"):
        old.top(2)
    with pytest.raises(UserError, match=r"log loss.*triscale eval"):
        old.log_loss()
    ours, theirs = measure(found.table, resamples=5), measure(old, resamples=5)
    assert ours.macro_f1 == theirs.macro_f1
    assert theirs.log_loss is None


HEADER = "name,label,predicted,confidence,rank,probability,sha256\n"
GOOD = "a.png,x,y,0.75,2,0.25,\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "line 1"),
        ("path,label\na.png,x\n", "path,label"),
        (HEADER, "no image"),
        (HEADER + "a.png,x,y\n", "3 cells"),
        (HEADER + GOOD + GOOD, "line 3: 'a.png' is listed twice"),
        (HEADER + ",x,y,0.75,2,0.25,\n", "empty"),
        (HEADER + "a.png,x,y,high,2,0.25,\n", "high"),
        (HEADER + "a.png,x,y,nan,2,0.25,\n", "nan"),
        (HEADER + "a.png,x,y,7,2,0.25,\n", "'7'"),
        (HEADER + "a.png,x,y,1e999,2,0.25,\n", "1e999"),
        (HEADER + "a.png,x,y,0.75,0,0.25,\n", "rank '0'"),
        (HEADER + "a.png,x,y,0.75,two,0.25,\n", "rank 'two'"),
        (HEADER + "a.png,x,y,0.75,1,0.75,\n", "contradict"),
        (HEADER + "a.png,x,x,0.75,1,0.25,\n", "contradict"),
        (HEADER + "a.png,x,y,0.25,2,0.75,\n", "contradict"),
        (HEADER + "a.png,x,y,0.75,2,0.25,abcd\n", "SHA-256"),
        (HEADER + "a.png,x,y,0.75,2,0.25,no\n", "hex"),
        (HEADER + GOOD + f"b.png,x,y,0.75,2,0.25,{'ab' * 32}\n", "some images"),
        (HEADER + 'a.png,"x,y,0.75,2,0.25,\n', "unexpected end"),
        (HEADER + "a\0.png,x,y,0.75,2,0.25,\n", "zero byte"),
        (b"\xff\xfe" + HEADER.encode(), "UTF-8"),
    ],
    ids=range(21),
)
def test_a_damaged_or_foreign_file_is_one_clear_error(tmp_path: Path, text: str | bytes, named: str) -> None:
    place = tmp_path / "table.csv"
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"table\.csv.*triscale eval RUN") as caught:
        read_table(place)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path)


def test_top_one_is_what_is_predicted_even_when_classes_tie() -> None:
    found = Predictions(("a", "b"), np.array([1, 0]), np.full((2, 2), 0.5, np.float32), ("x", "y"))
    assert found.predicted.tolist() == [0, 0]
    assert found.top().count == 1
    assert found.table.ranks is not None
    assert found.table.ranks.tolist() == [2, 1]
