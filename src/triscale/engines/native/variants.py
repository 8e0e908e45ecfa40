"""Plans of which something is left out, to see what it takes: activations, and what is joined to layers.

They compute no logits that mean anything; all else takes the time that it takes in the plan.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from triscale.engines.native.layers import NONE, Kind, Layer
from triscale.engines.native.plan import Plan


def has_activation(layer: Layer) -> bool:
    """Whether there is one to leave out. Squeeze-excite's, of a few values, stays its own."""
    return layer.kind is not Kind.EXCITE and any((layer.activation, layer.last, layer.expand_activation))


def without_activations(layer: Layer) -> Layer:
    """The layer with none, but for squeeze-excite's."""
    return layer._replace(activation=0, last=0, expand_activation=0) if has_activation(layer) else layer


def joined(layer: Layer) -> Literal["pointwise", "squeeze_excite"] | None:
    """What a layer does beside its main work, activations apart: an expansion, or a gate."""
    if layer.kind is Kind.DEPTHWISE and layer.expand > 0:
        return "pointwise"
    return "squeeze_excite" if layer.kind is Kind.CONV and layer.gate != NONE else None


def without_what_is_joined(layers: Sequence[Layer], buffer: int) -> tuple[list[Layer], list[int]]:
    """The layers with expansions of one input and without gates, and where each of them then stands.

    The one input comes from a convolution of its own, put before the layer into `buffer`, which nobody else has.
    """
    thin: list[Layer] = []
    places = []
    for layer in layers:
        match joined(layer):
            case "pointwise":
                thin.append(_one_channel(layer, buffer))
                layer = layer._replace(input=buffer, expand=1)
            case "squeeze_excite":
                layer = layer._replace(gate=NONE)
        places.append(len(thin))
        thin.append(layer)
    return thin, places


def _one_channel(layer: Layer, buffer: int) -> Layer:
    """Of what the expansion reads, by weights that are there."""
    sides = {"height": layer.height, "width": layer.width, "out_height": layer.height, "out_width": layer.width}
    return Layer(Kind.CONV, layer.input, buffer, channels=layer.expand, weight=layer.weight2, bias=layer.bias2, **sides)


def with_layers(plan: Plan, layers: Sequence[Layer]) -> Plan:
    """The plan with these instead of its own, its weights the same."""
    return replace(plan, layers=np.array(layers, np.int64))
