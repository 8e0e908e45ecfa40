"""The pixels of some pictures of a split, as training sees them."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from triscale.data.augmenting import Augment, Draws, shift_and_flip
from triscale.data.chance import uniform
from triscale.data.decoding import BoxOf, Pixels, cut_out, to_array
from triscale.data.erasing import erase
from triscale.data.mixing import Shares, mix
from triscale.data.operations import apply
from triscale.data.policies import draws_for, steps
from triscale.data.preparing import Prepared
from triscale.data.preprocessing import stretch

Indices = npt.NDArray[np.int64]

_POLICY_STREAM = 4


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes pictures of an epoch: crop, or shift, and flip; then the policy, then erasing, then mixing."""

    prepared: Prepared
    augment: Augment | None
    seed: int
    epoch: int

    @property
    def one_by_one(self) -> bool:
        """Whether there is enough to do for each picture that threads are worth their while."""
        augment = self.augment
        if self.prepared.cache is None:
            return True
        return augment is not None and bool(augment.crop_scale or augment.policy or augment.erase or augment.mixes)

    def fill(self, x: Pixels, index: Indices, share: Shares) -> None:
        """Fill ``x`` uint8 [n, H, W, c] with the pictures at ``index`` int64 [n], and ``share`` float32 [n] with their
        own shares in their targets. Where pictures are mixed, the first is at an even place of its batch."""
        augment = self.augment
        draws = Draws.at(self.seed, self.epoch, index)
        if augment is not None and augment.crop_scale is not None:
            self._crop(x, index, augment, draws)
        else:
            self._place(x, index, augment, draws)
        share[:] = 1
        if augment is None or not len(index):
            return
        if augment.policy is not None:
            self._distort(x, index, augment)
        if augment.erase:
            erase(x, index, self.seed, self.epoch, augment.erase)
        if augment.mixes:
            share[:] = mix(x, index, self.seed, self.epoch, augment.mixup, augment.cutmix)

    def _place(self, x: Pixels, index: Indices, augment: Augment | None, draws: Draws) -> None:
        """The pictures as they fit, shifted and mirrored."""
        prepared = self.prepared
        held, at = prepared.cache, index
        moves = augment is not None and bool(augment.shift or augment.flip)
        if held is None:
            for k, i in enumerate(index.tolist()):
                x[k] = prepared.preprocess.fit(prepared.images.pixels(i))
            held, at = x, np.arange(len(x), dtype=np.int64)
        elif not moves:
            held.take(at, axis=0, out=x, mode="clip")
        if augment is not None and moves:
            x[:] = shift_and_flip(held, at, augment, draws)

    def _crop(self, x: Pixels, index: Indices, augment: Augment, draws: Draws) -> None:
        """Random boxes, resized and mirrored."""
        to, mirrored = self.prepared.preprocess, draws.mirrored(augment)
        for k, i in enumerate(index.tolist()):
            part = self._part(i, partial(draws.box, k, resolution=to.resolution, augment=augment))
            x[k] = stretch(part, to.resolution, to.channels, to.interpolation, mirror=bool(mirrored[k]))

    def _part(self, i: int, box_of: BoxOf) -> Pixels:
        prepared = self.prepared
        if prepared.cache is not None:
            return cut_out(prepared.cache[i], box_of)
        return prepared.images.part(i, box_of, prepared.preprocess.resolution)

    def _distort(self, x: Pixels, index: Indices, augment: Augment) -> None:
        assert augment.policy is not None
        draws = uniform((self.seed, _POLICY_STREAM, self.epoch), index, draws_for(augment.policy, augment.layers))
        for k, row in enumerate(draws):
            picture = x[k, :, :, 0] if x.shape[3] == 1 else x[k]
            image = Image.fromarray(picture)
            for step in steps(augment.policy, augment.layers, augment.magnitude, row):
                image = apply(image, step)
            x[k] = to_array(image, x.shape[3])
