"""PyTorch: eager, and compiled."""

import copy
import platform
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from triscale.engines.runner import Array
from triscale.nn.network import Network
from triscale.precision import Precision

# Of a copy of its own fp32 and bf16: fp16 is for what autocast does on a GPU.
DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def emulates_bf16() -> bool:
    """Whether bf16 takes PyTorch many times as long as fp32 here, as on x86 without AVX-512."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and "AVX512" not in torch.backends.cpu.get_cpu_capability()


class PyTorch:
    """A copy of the network in evaluation mode, on the CPU, channels last.

    compiled: by torch.compile with its weights frozen, which takes a minute or more at the first call.
    """

    def __init__(self, network: Network, *, precision: Precision = "fp32", compiled: bool = False) -> None:
        self._type = DTYPES[precision]
        self._run: nn.Module = copy.deepcopy(network).cpu().eval()
        self._run.to(self._type).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled: Callable[[Tensor], Tensor] | None = None
        if compiled:
            # Code is compiled for a number of threads and, so that it is fast, for the sizes of its first call. What
            # was compiled before for others would make the compiler look for code that fits all, for many minutes.
            torch._dynamo.reset()
            self._compiled = torch.compile(self._run, dynamic=False)

    def __call__(self, images: Array) -> Array:
        """See `Runner`."""
        x = torch.from_numpy(images).to(dtype=self._type, memory_format=torch.channels_last)
        if self._compiled is None:
            with torch.inference_mode():
                logits: Array = self._run(x).float().numpy()
            return logits
        import torch._inductor.config as inductor

        with inductor.patch(freezing=True), torch.no_grad():
            found: Array = self._compiled(x).float().numpy()
        return found
