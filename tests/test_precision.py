"""What is promised of precisions: words and files are checked, and bf16 is trained in where it is computed."""

from dataclasses import replace

import pytest
import torch
from tiny import CPU

from triscale.errors import UserError
from triscale.plain import from_plain, to_plain
from triscale.precision import ANSWERING, TRAINING, check_precision
from triscale.training import Machine
from triscale.training.machine import cuda_precision
from triscale.trials import How


def test_a_word_that_is_no_precision_is_refused_with_those_there_are() -> None:
    assert [check_precision(word) for word in ("fp32", "bf16", "fp16")] == list(ANSWERING)
    with pytest.raises(UserError, match=r"^--precision int8: is none of fp32, bf16, fp16$"):
        check_precision("int8")


@pytest.mark.parametrize("kind", [Machine, How])
def test_a_training_that_was_frozen_in_another_precision_is_not_gone_on_with_in_fp32(
    kind: type[Machine] | type[How],
) -> None:
    plain = to_plain(replace(CPU, kernels=()) if kind is Machine else How())
    for precision in TRAINING:
        assert from_plain(kind, plain | {"precision": precision}, "run.json").precision == precision
    with pytest.raises(UserError, match=r"run\.json: precision: must be one of fp32, bf16, not \"fp16\""):
        from_plain(kind, plain | {"precision": "fp16"}, "run.json")


@pytest.mark.parametrize(("computes", "precision"), [(True, "bf16"), (False, "fp32")])
def test_cuda_trains_in_bf16_where_the_device_computes_it_and_not_where_it_is_emulated(
    computes: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or computes
    )
    assert cuda_precision() == precision
