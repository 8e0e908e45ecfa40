"""The prediction table: one row an image, and the one source of every measure. As CSV it is `predictions.csv`."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triscale.errors import UserError
from triscale.stats import Proportion

HEADER = ("name", "label", "predicted", "confidence", "rank", "probability", "sha256")
OLD_HEADER = HEADER[:4]  # as runs wrote it before; its confidences have four digits
SMALLEST = float(np.finfo(np.float32).tiny)

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Table:
    """What a model said of n images.

    ``labels`` and ``predicted``: int64 [n], positions in ``classes``. ``confidence``: float32 [n], the probability of
    the predicted class. ``ranks``: int64 [n], 1 where the true class is the likeliest. ``probability``: float32 [n], of
    the true class. Both are None in a table that an earlier version wrote. ``digests``: n SHA-256 digests of the
    images' content, or none at all. ``classes``: the model's; read from a file alone, those that occur in it, sorted.
    """

    names: tuple[str, ...]
    labels: Indices
    predicted: Indices
    confidence: Floats
    ranks: Indices | None
    probability: Floats | None
    digests: tuple[bytes, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which images were named right, bool [n]."""
        answer: npt.NDArray[np.bool_] = self.predicted == self.labels
        return answer

    def top(self, k: int = 1) -> Proportion:
        """How many images have their true class among the k likeliest. Raises `UserError` where k is above 1 and an
        older table keeps no ranks."""
        if k == 1:
            return Proportion(int(self.right.sum()), len(self))
        if self.ranks is None:
            raise UserError(f"top-{k} accuracy: {_LACKS.format('ranks')}")
        return Proportion(int((self.ranks <= k).sum()), len(self))

    def losses(self) -> npt.NDArray[np.float64]:
        """-log(probability of the true class), float64 [n]; a probability of 0 is taken for the smallest normal number
        of fp32. Raises `UserError` where an older table keeps no probabilities."""
        if self.probability is None:
            raise UserError(f"log loss: {_LACKS.format('probabilities of the true class')}")
        losses: npt.NDArray[np.float64] = -np.log(np.maximum(self.probability.astype(np.float64), SMALLEST))
        return losses

    def log_loss(self) -> tuple[float, float]:
        """The mean of `losses` and the standard error of that mean."""
        losses = self.losses()
        return float(losses.mean()), float(losses.std(ddof=1) / len(losses) ** 0.5) if len(losses) > 1 else 0.0

    def confusion(self) -> Indices:
        """[true class, predicted class] → number of images."""
        n = len(self.classes)
        return np.bincount(self.labels * n + self.predicted, minlength=n * n).reshape(n, n)

    def select(self, indices: Sequence[int] | Indices) -> "Table":
        """The rows at ``indices``, in that order."""
        at = np.asarray(indices, np.int64)
        return replace(
            self,
            names=tuple(self.names[i] for i in at),
            labels=self.labels[at],
            predicted=self.predicted[at],
            confidence=self.confidence[at],
            ranks=None if self.ranks is None else self.ranks[at],
            probability=None if self.probability is None else self.probability[at],
            digests=tuple(self.digests[i] for i in at) if self.digests else (),
        )

    def among(self, classes: Sequence[str]) -> "Table":
        """The same answers with the classes numbered as in ``classes``, which must hold all that occur. Raises
        `KeyError` with the name of one that is missing."""
        position = {label: i for i, label in enumerate(classes)}
        used = sorted({*self.labels.tolist(), *self.predicted.tolist()})
        to = np.zeros(len(self.classes), np.int64)
        to[used] = [position[self.classes[i]] for i in used]
        return replace(self, labels=to[self.labels], predicted=to[self.predicted], classes=tuple(classes))

    def to_csv(self) -> str:
        """As text with the header name,label,predicted,confidence,rank,probability,sha256. fp32 numbers are written so
        that they are read back exactly; a table without ranks or probabilities is written with its four columns."""
        out = io.StringIO()
        # Before Python 3.13 a carriage return alone is not quoted, and would then be read as an end of line.
        odd = any("\r" in text for text in (*self.names, *self.classes))
        writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
        answers = (
            self.names,
            (self.classes[i] for i in self.labels.tolist()),
            (self.classes[i] for i in self.predicted.tolist()),
            map(str, self.confidence),
        )
        if self.ranks is None or self.probability is None:
            writer.writerow(OLD_HEADER)
            writer.writerows(zip(*answers, strict=True))
            return out.getvalue()
        digests = [digest.hex() for digest in self.digests] or [""] * len(self)
        writer.writerow(HEADER)
        writer.writerows(zip(*answers, self.ranks.tolist(), map(str, self.probability), digests, strict=True))
        return out.getvalue()


_LACKS = (
    "the table has four columns, from an earlier version, and keeps no {}; evaluate the model anew: "
    "triscale eval RUN --out TABLE.csv"
)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    label: str
    predicted: str
    confidence: np.float32
    rank: int | None = None
    probability: np.float32 | None = None
    digest: bytes = b""


def is_table(path: Path) -> bool:
    """Whether a path names a stored table rather than a model: by its ending."""
    return path.suffix.lower() == ".csv"


def read_table(path: str | Path) -> Table:
    """A stored prediction table; its classes are those that occur in it, sorted.

    Raises `UserError` for a file that is missing, damaged or something else, naming the line.
    """
    place, line = Path(path), 1
    rows: dict[str, _Row] = {}
    try:
        with place.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = tuple(next(reader, ()))
            if header not in (HEADER, OLD_HEADER):
                raise ValueError(f"it begins with {','.join(header)[:60]!r} instead of {','.join(HEADER)}")
            for cells in reader:
                line = reader.line_num
                row = _row(cells, len(header))
                if row.name in rows:
                    raise ValueError(f"{row.name!r} is listed twice")
                rows[row.name] = row
        return _from_rows(list(rows.values()), header == OLD_HEADER)
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror or error}); name a run's predictions.csv") from None
    except (ValueError, csv.Error) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UserError(
            f"{place}: not a prediction table that this version reads (line {line}: {reason}); "
            "write it again: triscale eval RUN --out TABLE.csv"
        ) from None


def _row(cells: list[str], columns: int) -> _Row:
    if len(cells) != columns:
        raise ValueError(f"{len(cells)} cells instead of {columns}")
    name, label, predicted = cells[:3]
    if not name or not label or not predicted or "\0" in "".join(cells):
        raise ValueError("a name or a class is empty, or holds a zero byte")
    confidence = _share(cells[3], "confidence")
    if columns == len(OLD_HEADER):
        return _Row(name, label, predicted, confidence)
    rank, probability, digest = _rank(cells[4]), _share(cells[5], "probability"), bytes.fromhex(cells[6])
    if (rank == 1) != (label == predicted) or probability > confidence or (rank == 1 and probability != confidence):
        raise ValueError("label, predicted, confidence, rank and probability contradict each other")
    if len(digest) not in (0, 32):
        raise ValueError(f"{cells[6]!r} is no SHA-256")
    return _Row(name, label, predicted, confidence, rank, probability, digest)


def _share(text: str, column: str) -> np.float32:
    value = np.float32(text)
    if not (math.isfinite(value) and 0 <= value <= 1.0001):  # a softmax in fp32 may end just above 1
        raise ValueError(f"{column} {text!r} is no probability")
    return value


def _rank(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
        raise ValueError(f"rank {text!r} is no whole number from 1")
    return int(text)


def _from_rows(rows: list[_Row], old: bool) -> Table:
    if not rows:
        raise ValueError("it lists no image")
    if len({bool(row.digest) for row in rows}) > 1:
        raise ValueError("some images have a sha256 and others have none")
    classes = tuple(sorted({text for row in rows for text in (row.label, row.predicted)}))
    position = {label: i for i, label in enumerate(classes)}
    return Table(
        names=tuple(row.name for row in rows),
        labels=np.array([position[row.label] for row in rows], np.int64),
        predicted=np.array([position[row.predicted] for row in rows], np.int64),
        confidence=np.array([row.confidence for row in rows], np.float32),
        ranks=None if old else np.array([row.rank for row in rows], np.int64),
        probability=None if old else np.array([row.probability for row in rows], np.float32),
        digests=tuple(row.digest for row in rows) if rows[0].digest else (),
        classes=classes,
    )
