"""The published sizes that tests hold the project to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COUNTS: Mapping[str, Any] = json.loads((Path(__file__).parent / "data" / "published_counts.json").read_text("utf-8"))
NETWORKS: Mapping[str, Mapping[str, Any]] = COUNTS["networks"]
FAMILY = tuple(name for name, sizes in NETWORKS.items() if "channels" in sizes)
