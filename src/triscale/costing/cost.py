"""What a network costs: exact parameters, MACs and activations, estimated memory; from the description alone."""

from dataclasses import dataclass, field

from triscale.arch.spec import Architecture
from triscale.costing.convolutions import AFTER, NORM, Row, Sums, block_shape, block_sums, kept_by

FLOAT = 4  # bytes of fp32
STATE = 5  # copies of the weights that training holds: themselves, gradient, two moments, moving average


@dataclass(frozen=True, slots=True)
class Memory:
    """Estimates in bytes, fp32.

    inference: weights, and the most activations alive at once for one image (a layer's input and output, and what a
    shortcut holds). training_state: weights, gradients, two optimizer moments and the moving average of the weights.
    training_per_image: what the backward pass keeps of one image: the image, the outputs of convolutions and of
    activations, of normalisations whose activation needs them, of squeeze-excite. The copies that SAME padding
    makes before strides are left out: mnasnet_a1 keeps 14 % more than this, the zoo's other families at most 2 %.
    """

    inference: int
    training_state: int
    training_per_image: int

    def training(self, batch: int) -> int:
        """Bytes of a training step on `batch` images."""
        return self.training_state + batch * self.training_per_image


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution (squeeze-excite's are 1×1 convolutions too) or the linear layer.

    output: (height, width) of its output map.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    kernel: int
    groups: int
    output: tuple[int, int]
    params: int
    macs: int
    activations: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Totals of a network for one image.

    params: trainable parameters (weights, biases, normalisation's scale and shift). macs: multiply-accumulates of
    convolutions, squeeze-excite and linear layers, nothing else (what the paper calls FLOPs; torchvision's
    convention). activations: output elements of the convolutions. size: bytes of the fp32 weights.
    """

    params: int
    macs: int
    activations: int
    memory: Memory
    architecture: Architecture = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of the weights in fp32."""
        return self.params * FLOAT

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The same cost, layer by layer, in the order of computation; names as in the built module."""
        return layers(self.architecture)


def cost(architecture: Architecture) -> Cost:
    """The exact cost of a network, without building it (about 30 µs: repeated blocks are counted once)."""
    stem, (height, width) = stem_row(architecture), stem_map(architecture)
    pixels, made = height * width, stem.outputs * height * width
    image = architecture.channels * architecture.resolution[0] * architecture.resolution[1]
    params, macs, activations, kept = stem.params, stem.weights * pixels, made, image + made * stem.kept
    peak = image + made
    if architecture.stem.pool > 1:
        height, width = pooled_map(architecture)
        pooled = stem.outputs * height * width
        # Max-pooling keeps the place of each maximum as an integer of eight bytes.
        kept, peak = kept + 3 * pooled, max(peak, made + pooled)
    blocks, inputs, pixels = _distinct_blocks(architecture)
    for sums, before, after, times in blocks:
        weights, m_before, m_after, m_once, a_before, a_after, a_once, k_before, k_after, k_once, alive = sums
        params += weights * times
        macs += (m_before * before + m_after * after + m_once) * times
        activations += (a_before * before + a_after * after + a_once) * times
        kept += (k_before * before + k_after * after + k_once) * times
        for at_input, at_output in alive:
            if (elements := at_input * before + at_output * after) > peak:
                peak = elements
    head = head_row(architecture)
    if head:
        made = head.outputs * pixels
        params, macs, activations = params + head.params, macs + head.weights * pixels, activations + made
        kept, peak = kept + made * head.kept, max(peak, made + inputs * pixels)
    linear = architecture.features * architecture.classes
    params += linear + architecture.classes
    memory = Memory((params + peak) * FLOAT, params * FLOAT * STATE, kept * FLOAT)
    return Cost(params, macs + linear, activations, memory, architecture)


def _distinct_blocks(architecture: Architecture) -> tuple[list[tuple[Sums, int, int, int]], int, int]:
    """(sums, pixels before, pixels after, how many) of each stage's first block and of its equal others.

    Then the channels and pixels that the head sees.
    """
    blocks: list[tuple[Sums, int, int, int]] = []
    inputs, (height, width) = architecture.stem.channels, pooled_map(architecture)
    before = height * width
    for stage in architecture.stages:
        block, skip, outputs, stride = stage.block, stage.skip, stage.channels, stage.stride
        if stride != 1:
            height, width = -(-height // stride), -(-width // stride)
        after = height * width
        blocks.append((block_sums(block, skip, inputs, outputs, stride), before, after, 1))
        if stage.repeats > 1:
            blocks.append((block_sums(block, skip, outputs, outputs, 1), after, after, stage.repeats - 1))
        inputs, before = outputs, after
    return blocks, inputs, before


def layers(architecture: Architecture) -> tuple[Layer, ...]:
    """Every convolution and the linear layer, in the order of computation; names as in the built module."""
    shape = stem_map(architecture)
    found = [_layer("stem.", stem_row(architecture), shape)]
    inputs, shape = architecture.stem.channels, pooled_map(architecture)
    for i, stage in enumerate(architecture.stages):
        for j in range(stage.repeats):
            stride = stage.stride if j == 0 else 1
            after = -(-shape[0] // stride), -(-shape[1] // stride)
            rows = block_shape(stage.block, stage.skip, inputs, stage.channels, stride).rows
            found.extend(_layer(f"stages.{i}.{j}.", row, (shape, after, (1, 1))[row.where]) for row in rows)
            inputs, shape = stage.channels, after
    head = head_row(architecture)
    if head:
        found.append(_layer("head.", head, shape))
    features, classes = architecture.features, architecture.classes
    weights = features * classes
    found.append(Layer("head.classifier", "linear", features, classes, 1, 1, (1, 1), weights + classes, weights, 0))
    return tuple(found)


def stem_row(architecture: Architecture) -> Row:
    """The stem's convolution."""
    stem = architecture.stem
    kept = kept_by(stem.activation)
    return Row("conv", architecture.channels, stem.channels, stem.kernel, 1, AFTER, NORM, kept)


def stem_map(architecture: Architecture) -> tuple[int, int]:
    """(height, width) of the stem convolution's output."""
    (height, width), stride = architecture.resolution, architecture.stem.stride
    return -(-height // stride), -(-width // stride)


def pooled_map(architecture: Architecture) -> tuple[int, int]:
    """(height, width) that the first stage sees."""
    (height, width), stride = stem_map(architecture), architecture.stem.pool
    return -(-height // stride), -(-width // stride)


def head_row(architecture: Architecture) -> Row | None:
    """The head's 1×1 convolution, where there is one."""
    head = architecture.head
    if head.channels is None:
        return None
    # Global pooling keeps nothing of what it is given.
    kept = 1 if head.activation == "none" else 2
    return Row("conv", architecture.stages[-1].channels, head.channels, 1, 1, AFTER, NORM, kept)


def _layer(prefix: str, row: Row, shape: tuple[int, int]) -> Layer:
    pixels = shape[0] * shape[1]
    return Layer(
        name=prefix + row.name,
        kind="conv",
        inputs=row.inputs,
        outputs=row.outputs,
        kernel=row.kernel,
        groups=row.groups,
        output=shape,
        params=row.params,
        macs=row.weights * pixels,
        activations=row.outputs * pixels,
    )
