"""The machine that trains: its device, its allocator, its faster precision and kernels. Measured once, then frozen with
the run."""

import ctypes
import os
import platform
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from triscale.arch import Architecture
from triscale.costing import cost
from triscale.engines.pytorch import emulates_bf16
from triscale.errors import UserError
from triscale.kernels import status
from triscale.nn.network import Network
from triscale.precision import TRAINING, TrainingPrecision
from triscale.training.choosing import all_kernels, fastest_kernels, fixed_kernels

COMPILED = " compiled"
OWN, ALL_OWN = " with own kernels", " with all own kernels"
TURNS = 4
LONG_ENOUGH = 2.0  # seconds of measuring
MEASURED_MACS = 5_000_000_000  # forward, of one measured step on a CPU: about a second or two with its backward pass

PRODUCT, PRODUCT_ON_CUDA = 512, 4096  # rows and columns: some milliseconds

N = TypeVar("N", bound=nn.Module)

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run was planned for.

    per_image: measured seconds of a training step over its images, of which there were `measured`; without the
    optimizer and the making of batches. step: seconds of such a step, by what was tried. compiled: whether steps run
    through torch.compile. deterministic: only algorithms that give the same bits again. kernels: the layers that train
    by Triscale's own kernels; PyTorch trains the others.
    """

    device: str
    precision: TrainingPrecision
    threads: int
    measured: int
    per_image: float
    step: dict[str, float]
    compiled: bool = False
    deterministic: bool = False
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Way:
    """A way to make a step. how: what is special about it, in words."""

    precision: TrainingPrecision
    threads: int
    how: str = ""
    kernels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.precision}{self.how}, {self.threads} threads"


def find_device(name: str | None) -> torch.device:
    """The device of that name, or CUDA where there is one, else the CPU. Raises `UserError`."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"--device {name!r} is no device; take cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r} is not supported; take cpu or cuda")
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        seen = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        way = "take one of those, or cpu" if seen else "take cpu"
        raise UserError(f"--device {name}: PyTorch sees {seen or 'no CUDA device'} here; {way}")
    return device


def total_memory(device: torch.device) -> int:
    """Bytes that the device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def to_device(network: N, device: torch.device) -> N:
    """Moves the network there in place, its convolutions in channels-last order, and returns it."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def give_back(device: torch.device) -> None:
    """What PyTorch keeps of a GPU's memory for later goes back, so that smaller tensors find room in whole pieces.

    To be called once the error of a pass that failed is gone: its traceback holds all that the pass had made.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()


def steady_allocator() -> bool:
    """Lets glibc keep freed memory instead of returning every large tensor to the system and faulting it in again.

    For the whole process, and only where glibc is the C library; tells whether it was done. An fp32 step on a CPU is
    several times slower without it: a tensor of a few megabytes is thousands of page faults.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        libc = ctypes.CDLL(None)
        done = [
            libc.mallopt(_M_MMAP_MAX, 0),  # the threshold for mapping can be raised to 32 MiB only; tensors are larger
            libc.mallopt(_M_TRIM_THRESHOLD, 2**30),
            libc.mallopt(_M_TOP_PAD, 64 * 2**20),
        ]
    except (OSError, AttributeError):
        return False
    return all(done)


def autocast(device: torch.device | str, precision: TrainingPrecision) -> torch.autocast:
    """bf16 autocast, or none for fp32."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16")


def training_step(
    network: Network, batch: int, device: torch.device, precision: TrainingPrecision, *, compiled: bool = False
) -> Callable[[], None]:
    """A function that runs one forward and backward pass on random images."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, network.architecture.channels, *network.architecture.resolution)
    x = torch.randn(shape, generator=generator).to(device, memory_format=torch.channels_last)
    y = torch.randint(0, network.architecture.classes, (batch,), generator=generator).to(device)
    forward = torch.compile(network) if compiled else network

    def step() -> None:
        with autocast(device, precision):
            loss = F.cross_entropy(forward(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def fastest_machine(network: Network, batch: int, device: torch.device, until: float | None = None) -> Machine:
    """How to train here: the threads, then the kernels of each layer in each precision, then the precision, that take
    least time for a step; and how long that is.

    Candidates are timed in turn on a copy of the network. More threads are taken only where they pay by a tenth: on a
    machine that does other work too, threads that wait for each other are many times slower than one alone. On CUDA
    it is bf16 where the device has it, and what is timed is whether torch.compile makes it faster (on a CPU it does
    not: it made a step at 32 pixels eight times slower). until: the `time.monotonic()` after which nothing further is
    tried.
    """
    most = torch.get_num_threads()
    copy = to_device(deepcopy(network), device).train()
    count = sample_size(network.architecture, batch, device)
    try:
        with torch.random.fork_rng(devices=[]):  # the run's own draws must not depend on what is measured
            if device.type == "cuda":
                times, best = _on_cuda(copy, count, device, until)
            else:
                times, best = _on_cpu(copy, count, batch, most, until)
    finally:
        torch.set_num_threads(most)
    measured = {str(way): round(time, 6) for way, time in times.items()}
    per_image, compiled = times[best] / count, best.how == COMPILED
    return Machine(
        str(device), best.precision, best.threads, count, per_image, measured, compiled, kernels=best.kernels
    )


def repeatable_machine(network: Network, device: torch.device, threads: int) -> Machine:
    """What nothing is measured for: fp32, all the threads there are, the same algorithms and kernels each time."""
    kernels = fixed_kernels(network) if device.type == "cpu" else ()
    return Machine(str(device), "fp32", threads, 0, 0.0, {}, deterministic=True, kernels=kernels)


def cpu_precisions() -> tuple[TrainingPrecision, ...]:
    """What is tried on this processor. PyTorch's bf16 is slow on those of x86 without AVX-512."""
    return ("fp32",) if emulates_bf16() else TRAINING


def product_speed(device: torch.device) -> float:
    """MACs a second of a large matrix product in fp32: the best of a few."""
    cuda = device.type == "cuda"
    side = PRODUCT_ON_CUDA if cuda else PRODUCT
    x = torch.ones((side, side), device=device)
    taken: list[float] = []
    for _ in range(1 + TURNS):
        start = time.perf_counter()
        x @ x
        if cuda:
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return float(side**3 / min(taken))


def _late(until: float | None) -> bool:
    return until is not None and time.monotonic() > until


def _on_cpu(copy: Network, count: int, batch: int, most: int, until: float | None) -> tuple[dict[Way, float], Way]:
    device, every = torch.device("cpu"), all_kernels(copy)
    steps = {precision: training_step(copy, count, device, precision) for precision in cpu_precisions()}
    counts, how = sorted({1, max(1, most // 2), most}), ALL_OWN if every else ""
    times = time_steps(copy, {Way("fp32", threads, how, every): steps["fp32"] for threads in counts})
    threads = min((time * (1 if way.threads == 1 else 1.1), way.threads) for way, time in times.items())[1]
    if _late(until):
        return times, next(way for way in times if way.threads == threads)
    torch.set_num_threads(threads)
    ways = {}
    for precision, step in steps.items():
        ways[Way(precision, threads)] = step
        if own := fastest_kernels(copy, batch, precision):
            ways[Way(precision, threads, OWN, own)] = step
        if every and own != every:  # what neighbours win by being one kernel, no layer shows alone
            ways[Way(precision, threads, ALL_OWN, every)] = step
        if _late(until):
            break
    decisive = time_steps(copy, ways)
    return times | decisive, min(decisive, key=decisive.__getitem__)


def cuda_precision() -> TrainingPrecision:
    """bf16 where the CUDA device computes in it."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _on_cuda(copy: Network, count: int, device: torch.device, until: float | None) -> tuple[dict[Way, float], Way]:
    precision, threads = cuda_precision(), torch.get_num_threads()
    times = time_steps(copy, {Way(precision, threads): training_step(copy, count, device, precision)})
    if _late(until):
        return times, Way(precision, threads)
    try:
        step = training_step(copy, count, device, precision, compiled=True)
        times |= time_steps(copy, {Way(precision, threads, COMPILED): step})
    except RuntimeError:  # no compiler here; there is nothing to win then
        pass
    return times, min(times, key=times.__getitem__)


def sample_size(architecture: Architecture, batch: int, device: torch.device) -> int:
    """Images of a measured step: the batch; on a CPU, where a step of a large network takes long, as few as will do."""
    if device.type == "cuda":
        return batch
    return max(2, min(batch, MEASURED_MACS // cost(architecture).macs))


def time_steps(copy: Network, steps: dict[Way, Callable[[], None]]) -> dict[Way, float]:
    """Median seconds of each step of the network: in turn, a few times, or until they took long enough."""
    times: dict[Way, list[float]] = {way: [] for way in steps}
    started = time.perf_counter()
    for turn in range(1 + TURNS):
        for way, step in steps.items():
            torch.set_num_threads(way.threads)
            copy.use(way.kernels)
            start = time.perf_counter()
            step()
            times[way].append(time.perf_counter() - start)
        if turn and time.perf_counter() - started > LONG_ENOUGH:
            break
    return {way: median(taken[1:]) for way, taken in times.items()}  # the first turn warms up


def describe() -> dict[str, str]:
    """Versions, processor, and the instruction set of Triscale's kernels or why there are none, for run.json."""
    kernels = status()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.isa or f"none: {kernels.why}",
    }
