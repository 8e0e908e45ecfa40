"""What half precision costs in answers: the native engine and OpenVINO in it against PyTorch in fp32, on photographs.

    python benchmarks/bf16_agreement.py [--json]

EfficientNet-Lite0 to 2 with their ImageNet weights (the extra `pretrained`) look at crops of photographs (those of
`examples/lite_pixels.py`; needs scikit-image). For each engine: on how many crops the likeliest class is PyTorch's,
with its 95 % interval, and the error of logits, relative to the largest of the crop: the median and the 95th
percentile.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from triscale.engines import running
from triscale.engines.runner import Array
from triscale.engines.table import ENGINES as ENGINE_TABLE
from triscale.models import load
from triscale.stats import Proportion

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from lite_pixels import crops

NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
ENGINES = (("native", "fp32"), ("native", "bf16"), ("native", "fp16"), ("openvino", "bf16"), ("openvino", "fp16"))


def answers(name: str) -> dict[str, Array]:
    """Logits by engine; PyTorch's in fp32 under ""."""
    model = load(name)
    x = torch.stack([model.preprocess(picture) for picture in crops(model.preprocess.resolution)])
    with torch.inference_mode():
        found = {"": model(x).numpy()}
    for engine, precision in ENGINES:
        if ENGINE_TABLE[engine].missing(precision) is None:
            with running(model, engine=engine, precision=precision) as logits:
                found[f"{engine} {precision}"] = logits(x).numpy()
    return found


def compared(engine: str, wanted: Array, found: Array) -> dict[str, object]:
    same = Proportion(int((wanted.argmax(1) == found.argmax(1)).sum()), len(wanted))
    errors = np.abs(found - wanted).max(1) / np.abs(wanted).max(1)
    return {
        "engine": engine,
        "images": len(wanted),
        "agree": same.value,
        "interval": list(same.interval()),
        "median_error": float(np.median(errors)),
        "error_95": float(np.quantile(errors, 0.95)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logits: dict[str, list[Array]] = {}
    for name in NETWORKS:
        for engine, found in answers(name).items():
            logits.setdefault(engine, []).append(found)
    wanted = np.concatenate(logits.pop(""))
    rows = [compared(engine, wanted, np.concatenate(found)) for engine, found in logits.items()]
    if asked.json:
        print(json.dumps({"engines": rows}))
        return
    for row in rows:
        low, high = row["interval"]
        print(
            f"{row['engine']:14} agrees on {row['agree']:.1%} ({low:.1%} to {high:.1%}) of {row['images']} crops; "
            f"error of logits {row['median_error']:.1e} (median), {row['error_95']:.1e} (95 % of crops are below)"
        )


if __name__ == "__main__":
    main()
