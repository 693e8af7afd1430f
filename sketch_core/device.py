"""Where to compute, and in what precision."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA, then MPS, then the CPU; in a ``torchrun`` process, the GPU of its local rank.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"There is no kind of device {name[:40]!r}; choose auto, cpu, cuda or mps.") from error
    missing_gpu = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if missing_gpu or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f"There is no device {name} here that PyTorch can use; choose auto or cpu.")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """torch.bfloat16 where the device multiplies it in hardware, else ``None`` for fp32.

    Raises:
        ValueError: "bf16" is asked of a CPU without it, on which PyTorch's LSTM fails in the middle of a step.
    """
    supported = False
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported()
    elif device.type == "cpu":
        flags = _cpu_flags()
        supported = "avx512_bf16" in flags or "amx_bf16" in flags
    if name == "bf16" and device.type == "cpu" and not supported:
        raise ValueError("This CPU does not multiply bf16; leave --precision at auto or choose fp32.")
    return torch.bfloat16 if name == "bf16" or (name == "auto" and supported) else None


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return ""
