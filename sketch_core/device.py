"""Where to compute, and in what precision."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA, then MPS, then the CPU; in a ``torchrun`` process, the GPU of its local rank."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """torch.bfloat16 where the device has fast bf16 recurrent kernels, else ``None`` for fp32."""
    if name == "fp32":
        return None
    if name == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu":
        # Only trying tells: oneDNN reports bf16 on some CPUs on which it has no bf16 LSTM.
        try:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                nn.LSTM(8, 8, batch_first=True)(torch.zeros(2, 2, 8))
            return torch.bfloat16 if "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags() else None
        except RuntimeError:
            return None
    return None


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return ""
