"""A training step (forward, loss, backward) with Triscale's kernels against PyTorch's own, the same network, on a CPU.

    python benchmarks/train_step.py [--json] [--only small|large|peers] [--repeats 7] [--threads 2] [--memory]

small: what studies and searches train: one thread, batch 128, an MBConv network of 3.6M MACs at 16 pixels, and what
depth, width and resolution make of it. large: EfficientNet-B0 at 224, batch 32, two threads. peers: EfficientNet-B3
at 300, EfficientNet-Lite0, MobileNetV2 and ResNet-50 at 224, batch 8. In fp32 and, where planning tries that on the
processor, under bf16 autocast, in channels-last order, the allocator made steady for all. chosen: kernels in the
layers that are faster by them alone, or nearly as fast; all: in all that have one; planning takes the faster. The
modes take turns step by step; medians with the lowest and highest, and the ratio of the fastest mode with kernels to
PyTorch's fastest. of peak: the arithmetic of a step (three times the forward pass's multiply-adds) at the speed of
large fp32 matrix products here, over the time of the fastest mode. --memory: what a mode's peak adds to the process
with the network in it; each in a process of its own.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from triscale.arch import Architecture, Head, MBConv, Stage, Stem, published
from triscale.arch.rounding import multiply
from triscale.costing import cost
from triscale.kernels import status
from triscale.nn import build
from triscale.training.choosing import fastest_kernels
from triscale.training.machine import autocast, cpu_precisions, steady_allocator, to_device

PRECISIONS = cpu_precisions()
MODES = tuple((who, precision) for precision in PRECISIONS for who in ("pytorch", "chosen", "all"))
WARM_UP = 3


def base() -> Architecture:
    """Four stages of 16 to 80 channels at 16 pixels."""
    rows = ((3, 16, 1, 1), (3, 24, 2, 2), (5, 40, 2, 2), (3, 80, 2, 1))
    stages = tuple(Stage(MBConv(k, 4, 0.25), channels, n, stride) for k, channels, n, stride in rows)
    return Architecture(stages, Stem(16, 3, 1), Head(10, 256), (16, 16))


def small() -> dict[str, Architecture]:
    return {
        "base": base(),
        "depth ×3": multiply(base(), depth=3),
        "width ×1.75": multiply(base(), width=1.75),
        "resolution ×2": multiply(base(), resolution=2),
    }


def peers() -> dict[str, tuple[Architecture, int]]:
    """Each with its batch."""
    names = {"EfficientNet-Lite0": "efficientnet_lite0", "MobileNetV2": "mobilenet_v2", "ResNet-50": "resnet50"}
    found = {f"{shown} at 224": (published(name), 8) for shown, name in names.items()}
    return {"EfficientNet-B3 at 300": (published("efficientnet_b3"), 8), **found}


def chosen(architecture: Architecture, batch: int, precision: str) -> tuple[str, ...]:
    """The layers with kernels, as planning chooses them, with as many threads as PyTorch now uses."""
    return fastest_kernels(to_device(build(architecture), torch.device("cpu")).train(), batch, precision)


def products_per_second() -> float:
    """Multiply-adds of a large fp32 matrix product: what this processor can do without matrix units."""
    a, taken = torch.randn(2048, 2048), []
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        taken.append(time.perf_counter() - start)
    return float(2048**3 / min(taken[1:]))


def stepper(architecture: Architecture, batch: int, kernels: tuple[str, ...], precision: str) -> Callable[[], None]:
    device = torch.device("cpu")
    network = to_device(build(architecture), device).train()
    network.use(kernels)
    generator = torch.Generator().manual_seed(0)
    shape = (batch, architecture.channels, *architecture.resolution)
    x = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, architecture.classes, (batch,), generator=generator)

    def step() -> None:
        with autocast(device, precision):
            loss = F.cross_entropy(network(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)

    return step


def measure(architecture: Architecture, batch: int, threads: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    kernels = {precision: chosen(architecture, batch, precision) for precision in PRECISIONS}
    every = tuple(build(architecture).with_kernels())
    steps = {
        f"{who} {precision}": stepper(
            architecture, batch, {"pytorch": (), "chosen": kernels[precision], "all": every}[who], precision
        )
        for who, precision in MODES
    }
    taken: dict[str, list[float]] = {mode: [] for mode in steps}
    for _ in range(WARM_UP + repeats):
        for mode, step in steps.items():
            start = time.perf_counter()
            step()
            taken[mode].append((time.perf_counter() - start) / batch * 1e3)
    times = {mode: {"median": statistics.median(found[WARM_UP:]), "lowest": min(found[WARM_UP:]),
                    "highest": max(found[WARM_UP:])} for mode, found in taken.items()}  # fmt: skip

    def fastest(of: str, own: bool) -> float:
        return min(found[of] for mode, found in times.items() if own != mode.startswith("pytorch"))

    return {
        "macs": cost(architecture).macs,
        "batch": batch,
        "threads": threads,
        "ms_per_image": times,
        "ratio": fastest("median", own=True) / fastest("median", own=False),
        "ratio_of_lowest": fastest("lowest", own=True) / fastest("lowest", own=False),
        "kernels": {precision: len(names) for precision, names in kernels.items()},
        "of_peak": 3 * cost(architecture).macs / products_per_second() / fastest("median", own=True) * 1e3,
    }


def _peak(
    answer: "multiprocessing.Queue[float]", architecture: Architecture, batch: int, threads: int, mode: tuple[str, str]
) -> None:
    steady_allocator()
    torch.set_num_threads(threads)
    kernels = tuple(build(architecture).with_kernels()) if mode[0] == "all" else ()
    step = stepper(architecture, batch, kernels, mode[1])
    before = _highest()
    for _ in range(WARM_UP):
        step()
    answer.put((_highest() - before) / 1024)


def _highest() -> int:
    """KiB that this program had at its peak. (What `getrusage` says counts the parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def peaks(architecture: Architecture, batch: int, threads: int) -> dict[str, float]:
    """MiB of each mode beyond the process with the network in it."""
    context, found = multiprocessing.get_context("spawn"), {}
    for mode in (mode for mode in MODES if mode[0] != "chosen"):
        answer = context.Queue()
        process = context.Process(target=_peak, args=(answer, architecture, batch, threads, mode))
        process.start()
        found[" ".join(mode)] = answer.get()
        process.join()
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """A network's modes, as soon as they are known."""
    print(f"\n{name}: {found['macs'] / 1e6:.1f}M MACs, batch {found['batch']}, {found['threads']} threads")
    for mode, times in found["ms_per_image"].items():
        peak = found.get("peak_mib", {}).get(mode)
        memory = f", peak {peak:,.0f} MiB" if peak else ""
        print(f"  {mode}: {times['median']:.3f} ({times['lowest']:.3f} to {times['highest']:.3f}){memory}")
    layers = " and ".join(f"{count} in {precision}" for precision, count in found["kernels"].items())
    print(
        f"  fastest to fastest: {found['ratio']:.2f} (of the lowest {found['ratio_of_lowest']:.2f}); "
        f"{found['of_peak']:.2f} of peak; layers with kernels: {layers}",
        flush=True,
    )


def main() -> None:
    """Prints a table as it goes, or one JSON object."""
    parser = argparse.ArgumentParser(description="A training step with Triscale's kernels against PyTorch's own.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", choices=("small", "large", "peers"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of the large network's steps")
    parser.add_argument("--memory", action="store_true", help="peak memory too")
    asked = parser.parse_args()
    if not steady_allocator():
        print("the allocator is not glibc's: times are those of its defaults")
    cases = {name: (found, 128, 1) for name, found in small().items()} if asked.only in (None, "small") else {}
    if asked.only in (None, "large"):
        cases["EfficientNet-B0 at 224"] = (published("efficientnet_b0"), 32, asked.threads)
    if asked.only in (None, "peers"):
        cases |= {name: (found, batch, asked.threads) for name, (found, batch) in peers().items()}
    results = {}
    if not asked.json:
        print(f"instruction set {status().isa}; ms per image and step, median of {asked.repeats} (lowest to highest)")
    for name, case in cases.items():
        results[name] = measure(*case, asked.repeats)
        if asked.memory:
            results[name]["peak_mib"] = peaks(*case)
        if not asked.json:
            show(name, results[name])
    if asked.json:
        print(json.dumps({"isa": status().isa, "repeats": asked.repeats, "networks": results}))


if __name__ == "__main__":
    main()
