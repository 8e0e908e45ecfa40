"""What a file of weights leaves unsaid: padding, the normalisation's epsilon, preprocessing. Decided here, and shown.

The same tensors are two networks where padding or epsilon differ (timm's `efficientnet_b0` and `tf_efficientnet_b0`),
and a network sees another picture where mean and deviation do. Where neither file nor name tells, the user does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from triscale.arch import Architecture, Padding, published
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.weights.hub import HubConfig, read_hub_config
from triscale.weights.naming import Tensor
from triscale.weights.published import Weights, catalogue, variant

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
# Lite's official code subtracts 127 and divides by 128 (lite/efficientnet_lite_builder.py).
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
# In the names of timm's networks that have the tensors of ours and compute otherwise.
LOOKALIKES = ("blur", "resnetaa")
CROP_PADDING = 32  # pixels around the centre crop in the official code: the crop keeps size / (size + 32)


@dataclass(frozen=True, slots=True)
class Convention:
    """One way to read a file. there: what its project calls the network. because: how that is known.

    known: the published weights that it is, where it is.
    """

    there: str
    network: str
    padding: Padding
    epsilon: float
    preprocess: Preprocess
    because: str = ""
    known: Weights | None = None

    @property
    def architecture(self) -> Architecture:
        """The network, of ImageNet's classes."""
        return variant(self.network, self.padding, self.epsilon, self.preprocess.resolution)

    @property
    def model(self) -> str:
        """`there` without its tag."""
        return self.there.partition(".")[0]


def decide(
    project: str, network: str, path: Path, tensors: Mapping[str, Tensor], sha256: str, said: str | None
) -> Convention:
    """The convention of a file whose tensors fit that network of the zoo.

    said: what the user calls it, in the project's words. Otherwise the digest, the hub's config.json beside the file or
    the file's name tell. Raises `UserError` where nothing does and it matters, or `said` is not among the project's.
    """
    options = _options(project, network, tensors)
    if said is not None:
        return _said(options, said, project)
    for option in options:
        known = option.known
        if known is not None and sha256.startswith(known.sha256):
            return replace(option, because=f"its SHA-256 is that of {known.name}")
    config = read_hub_config(path) if project == "timm" else None
    _refuse_lookalikes(path, config.model if config else path.name)
    if config is not None and _matching(options, config.there):
        return _configured(_matching(options, config.there), config)
    named = _in_name(options, path.name)
    if named is not None:
        return _first(_matching(options, named), f"the file's name says {named}")
    if len({(option.padding, option.epsilon) for option in options}) > 1:
        names = sorted({option.model for option in options})
        differ = " and ".join(f"{name} ({_differences(options, name)})" for name in names)
        raise UserError(
            f"{path}: its tensors fit {differ}, and nothing says which it is; say so: triscale models import "
            f"{quote(str(path))} --from {project} --as {' or --as '.join(names)}"
        )
    return _first(options, f"the only {network} of {project} that is known here")


def _refuse_lookalikes(path: Path, name: str) -> None:
    found = next((part for part in LOOKALIKES if part in _spelled(name)), None)
    if found is not None:
        raise UserError(
            f"{path}: {name} is another network with the same tensors ({found}: it smooths before its strides), which "
            "Triscale does not build; where the name misleads, say what it is with triscale models import … --as"
        )


def _configured(options: Sequence[Convention], config: HubConfig) -> Convention:
    """What config.json says: the network, and how it looks at pictures."""
    says = f"config.json beside it says {config.there}"
    chosen = _first(options, says)
    stated = config.look(chosen.preprocess)
    if stated is None:
        return chosen
    undone = " and ".join(config.undone())
    but = f", but for {undone}, which nothing here does" if undone else ""
    return replace(chosen, preprocess=stated, because=f"{says}; preprocessing as it states{but}")


def _differences(options: Sequence[Convention], name: str) -> str:
    one = next(option for option in options if option.model == name)
    return f"{one.padding} padding, epsilon {one.epsilon:g}"


def _options(project: str, network: str, tensors: Mapping[str, Tensor]) -> list[Convention]:
    """All ways to read a file of that project and network, the likeliest first."""
    if project == "keras":
        return [_keras(network, tensors)]
    if project in ("lukemelas", "tensorflow"):
        return _official(project, network)
    entries = [weights for weights in catalogue().values() if (weights.project, weights.network) == (project, network)]
    entries.sort(key=lambda weights: (not weights.default, "ap_" in weights.there))
    found = [Convention(w.there, network, w.padding, w.epsilon, w.preprocess, known=w) for w in entries]
    # timm builds each of these in its own way too, whether or not it publishes weights of it.
    own = project == "timm" and network.startswith("efficientnet") and network not in {option.model for option in found}
    return [*found, _plain(project, network)] if own or not found else found


def _official(project: str, network: str) -> list[Convention]:
    """The official code's checkpoints and their ports: SAME padding, epsilon 1e-3; AdvProp's see other pixels."""
    there = network.replace("_", "-")
    resolution = published(network).resolution
    crop = resolution[0] / (resolution[0] + CROP_PADDING)
    lite = "lite" in network
    mean, std = (LITE_MEAN, LITE_STD) if lite else (IMAGENET_MEAN, IMAGENET_STD)
    plain = Convention(there, network, "same", 1e-3, Preprocess(resolution, 3, mean, std, crop, "bicubic"))
    wheel = catalogue().get(network)
    if lite:
        return [replace(plain, known=wheel if wheel and wheel.project == "lukemelas" else None)]
    adversarial = Convention(f"adv-{there}", network, "same", 1e-3, replace(plain.preprocess, mean=HALF, std=HALF))
    # That project published B8 with AdvProp alone.
    return [adversarial, plain] if (project, network) == ("lukemelas", "efficientnet_b8") else [plain, adversarial]


def _keras(network: str, tensors: Mapping[str, Tensor]) -> Convention:
    """Keras pads as TensorFlow does; its files hold the normalisation of pixels."""
    resolution = published(network).resolution
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    because = "Keras has one; ImageNet's mean and deviation, for the file has none that can be used"
    if "normalization/mean" in tensors and "normalization/variance" in tensors:
        means, variances = (tensors[f"normalization/{name}"].ravel().tolist() for name in ("mean", "variance"))
        if len(means) == len(variances) == tensors["stem_conv/kernel"].shape[2] and min(variances) > 0:
            # Keras' published files keep the deviation where the variance belongs, and its code divides once more.
            twice = len(variances) == 3 and max(abs(v - s) for v, s in zip(variances, std, strict=True)) < 1e-3
            mean, std = tuple(means), tuple(variances if twice else (value**0.5 for value in variances))
            because = "Keras has one; mean and deviation as in the file"
    preprocess = Preprocess(resolution, len(mean), mean, std, 1.0, "bilinear")
    return Convention(network.replace("_", ""), network, "same", 1e-3, preprocess, because)


def _plain(project: str, network: str) -> Convention:
    """PyTorch's own padding and epsilon, where the catalogue has no weights of the network."""
    preprocess = Preprocess(published(network).resolution, 3, IMAGENET_MEAN, IMAGENET_STD, 0.875, "bicubic")
    if (project, network) == ("timm", "mobilenet_v1"):  # published without a checksum, so not in the catalogue
        there, halves = "mobilenetv1_100.ra4_e3600_r224_in1k", replace(preprocess, mean=HALF, std=HALF)
        return Convention(there, network, "symmetric", 1e-5, halves)
    return Convention(
        network, network, "symmetric", 1e-5, preprocess, f"{project} is not known to publish weights of its {network}"
    )


def _spelled(name: str) -> str:
    return name.lower().replace("-", "_")


def _said(options: Sequence[Convention], said: str, project: str) -> Convention:
    wanted = _spelled(said.rpartition("/")[2])
    exact = [option for option in options if wanted in (_spelled(option.there), _spelled(option.model))]
    if exact:
        return _first(exact, f"--as {said}")
    names = ", ".join(dict.fromkeys(name for option in options for name in (option.model, option.there)))
    raise UserError(
        f"--as {said}: is none of {project}'s that are known here and that these tensors fit; there are {names}"
    )


def _matching(options: Iterable[Convention], name: str) -> list[Convention]:
    """The options of exactly that name or, where it has no tag or an unknown one, of that model."""
    wanted = _spelled(name)
    exact = [option for option in options if _spelled(option.there) == wanted]
    return exact or [option for option in options if _spelled(option.model) == wanted.partition(".")[0]]


def _first(options: Sequence[Convention], because: str) -> Convention:
    """The likeliest; which weights they are is known only where there is one option."""
    chosen, others = options[0], options[1:]
    because = "; ".join(part for part in (because, chosen.because) if part)
    if any(other.preprocess != chosen.preprocess for other in others):
        first = next(other for other in others if other.preprocess != chosen.preprocess)
        because += f"; preprocessing of {chosen.there}: should it be {first.there}, say --as {first.there}"
    return replace(chosen, because=because, known=chosen.known if not others else None)


def _in_name(options: Sequence[Convention], file: str) -> str | None:
    """The longest name that the file's own name contains."""
    text = _spelled(file)
    names = {name for option in options for name in (option.there, option.model)}
    return max((name for name in names if _spelled(name) in text), key=len, default=None)
