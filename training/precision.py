"""Which precision the products of a training step are computed in."""

from typing import Any

import torch

from training.products import BFLOAT16, OWN
from training.settings import TrainSettings

BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
"""Of x86-64. With AMX a product over 8,400 candidates takes a fifth of its time in float32, with AVX-512 BF16
half of it; where torch must imitate them, several times as long."""


def low_precision(settings: TrainSettings) -> torch.dtype:
    """The precision asked for; for "auto", bfloat16 where the processor says that it multiplies them, and
    torch has the routines for it.

    By what the processor says, not by a timing: that could come out otherwise on the next run, and with it
    the weights.
    """
    if settings.precision == "auto":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        quick = onednn and BFLOAT16 not in OWN and any(map(capabilities.get, BFLOAT16_UNITS))
        return torch.bfloat16 if quick else torch.float32
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
