"""What timm's config.json beside a file says of it: the model's name, its tag, how it looks at pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triscale.data import Preprocess
from triscale.errors import UserError

MAX_CONFIG = 1_000_000
DONE: Mapping[str, tuple[str, ...]] = {"interpolation": ("bilinear", "bicubic"), "crop_mode": ("center", "squash")}
LONGEST = 40  # letters of a value in a line


@dataclass(frozen=True, slots=True)
class HubConfig:
    """model: timm's name of the network. tag: of its weights, or empty. values: its `pretrained_cfg`."""

    model: str
    tag: str
    values: Mapping[str, Any]

    @property
    def there(self) -> str:
        """The name with its tag, as timm writes it."""
        return f"{self.model}.{self.tag}" if self.tag else self.model

    def look(self, usual: Preprocess) -> Preprocess | None:
        """The preprocessing that it states, with the usual in place of what is `undone`; None where it states none, or
        one that cannot be."""
        mean, std, size = (_numbers(self.values.get(key)) for key in ("mean", "std", "input_size"))
        if not mean or not std or len(size) != 3:
            return None
        interpolation = self.values.get("interpolation", usual.interpolation)
        try:
            return replace(
                usual,
                resolution=(int(size[1]), int(size[2])),
                channels=len(mean),
                mean=mean,
                std=std,
                crop=float(self.values.get("crop_pct", usual.crop)),
                interpolation=interpolation if interpolation in DONE["interpolation"] else usual.interpolation,
                squash=self.values.get("crop_mode") == "squash",
            )
        except (UserError, TypeError, ValueError, OverflowError):  # the last for what is infinite
            return None

    def undone(self) -> tuple[str, ...]:
        """What it states of looking at pictures that nothing here does, each as its key and value."""
        stated = {key: self.values.get(key) for key in DONE}
        return tuple(
            f"{key} {value!r:.{LONGEST}}"
            for key, value in stated.items()
            if value is not None and value not in DONE[key]
        )


def read_hub_config(path: Path) -> HubConfig | None:
    """Of the config.json in the same folder; None where there is none, or it is of something else."""
    place = path.parent / "config.json"
    try:
        if place.stat().st_size > MAX_CONFIG:
            return None
        values = json.loads(place.read_bytes())
        name, stated = values["architecture"], values.get("pretrained_cfg", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(stated, dict):
        return None
    tag = stated.get("tag")
    return HubConfig(name, tag if isinstance(tag, str) else "", stated)


def _numbers(value: object) -> tuple[float, ...]:
    """The numbers of a list; none where it is no list of numbers."""
    if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
        return ()
    try:
        return tuple(float(x) for x in value)
    except OverflowError:  # a whole number of hundreds of digits
        return ()
