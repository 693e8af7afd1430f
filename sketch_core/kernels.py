"""What a step does beside its matrix products, compiled by Numba: the gates, the output layer, the sampling.

These are a dozen NumPy calls and more, each a microsecond or two: a third of a lone row's step, half of nine
rows'. Where Numba cannot be had, :data:`advance` and :data:`sample` are ``None`` and the engine does the same in
NumPy. The code is cached on disk, so only a fresh installation waits for the compiler (some seconds, once).
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from sketch_core.mixture import MAX_LOG_SIGMA, MAX_RHO
from sketch_core.model import POSITION_SCALE

# What may be reordered, so that sums use whole vectors; infinities and NaN keep their meaning.
FAST_MATH = {"contract", "reassoc", "arcp", "nsz"}

advance: Callable[..., None] | None = None
"""advance(gates, constant, half, c, inputs): (B, 4H) gates to new c (B, H) and h, into inputs (B, H + P)."""
sample: Callable[..., None] | None = None
"""sample(inputs, w_out, b_out, noise, ages, may_end, temperatures, min_log_sigma, place, positions, offsets, pens):
draw a point of each row from its h, into offsets (B, 2) and pens (B,), and feed it to inputs and place (B, 4)."""


def _define() -> tuple[Callable[..., None], Callable[..., None]]:
    from numba import njit  # noqa: PLC0415 (Numba may be missing)

    compiled: Any = njit(cache=True, nogil=True, fastmath=FAST_MATH, boundscheck=False)
    f = np.float32
    limit = f(7.90531110763549805)
    a1, a3, a5, a7 = f(4.89352455891786e-03), f(6.37261928875436e-04), f(1.48572235717979e-05), f(5.12229709037114e-08)
    a9, a11, a13 = f(-8.60467152213735e-11), f(2.00018790482477e-13), f(-2.76076847742355e-16)
    b0, b2, b4, b6 = f(4.89352518554385e-03), f(2.26843463243900e-03), f(1.18534705686654e-04), f(1.19825839466702e-06)
    half_of_one, position_scale = f(0.5), POSITION_SCALE
    max_rho, max_log_sigma = MAX_RHO, MAX_LOG_SIGMA

    @compiled
    def tanh(x):  # type: ignore[no-untyped-def]
        """Eigen's rational approximation (to 4e-7), which unlike libm's turns into vector instructions."""
        x = limit if x > limit else x
        x = -limit if x < -limit else x
        s = x * x
        p = x * (a1 + s * (a3 + s * (a5 + s * (a7 + s * (a9 + s * (a11 + s * a13))))))
        return p / (b0 + s * (b2 + s * (b4 + s * b6)))

    @compiled
    def advance(gates, constant, half, c, inputs):  # type: ignore[no-untyped-def]
        size = c.shape[1]
        for row in range(c.shape[0]):
            gate, add, memory, h = gates[row], constant[row], c[row], inputs[row]
            for j in range(size):
                i = half_of_one + half_of_one * tanh(half * (gate[j] + add[j]))
                forget = half_of_one + half_of_one * tanh(half * (gate[size + j] + add[size + j]))
                o = half_of_one + half_of_one * tanh(half * (gate[2 * size + j] + add[2 * size + j]))
                memory[j] = forget * memory[j] + i * tanh(gate[3 * size + j] + add[3 * size + j])
                h[j] = o * tanh(memory[j])

    @compiled
    def sample(  # type: ignore[no-untyped-def]  # noqa: PLR0917
        inputs, w_out, b_out, noise, ages, may_end, temperatures, min_log_sigma, place, positions, offsets, pens
    ):
        size, m = w_out.shape[1], (w_out.shape[0] - 3) // 6
        y = np.empty(w_out.shape[0], dtype=np.float32)
        weights = np.empty(m, dtype=np.float64)
        for row in range(inputs.shape[0]):
            x = inputs[row]
            for k in range(w_out.shape[0]):
                total = b_out[k]
                w = w_out[k]
                for j in range(size):
                    total += w[j] * x[j]
                y[k] = total
            u_component, u_pen, normal_x, normal_y = noise[row, ages[row]]
            inverse_pi, inverse_pen, root = temperatures[row]
            ending = ages[row] > 0 or may_end[row]
            highest = max(y[0], y[1])
            if ending:
                highest = max(highest, y[2])
            down, lift = math.exp((y[0] - highest) * inverse_pen), math.exp((y[1] - highest) * inverse_pen)
            end = math.exp((y[2] - highest) * inverse_pen) if ending else 0.0
            threshold = u_pen * (down + lift + end)
            pen = 0 if down > threshold else 1 if down + lift > threshold else 2
            highest = y[3]
            for j in range(1, m):
                highest = max(highest, y[3 + j])
            total_weight = 0.0
            for j in range(m):
                total_weight += math.exp((y[3 + j] - highest) * inverse_pi)
                weights[j] = total_weight
            threshold = u_component * total_weight
            component = 0
            while component < m - 1 and weights[component] <= threshold:
                component += 1
            first = 3 + m + component
            rho = min(max(math.tanh(y[first + 4 * m]), -max_rho), max_rho)
            sigma_x = root * math.exp(min(max(y[first + 2 * m], min_log_sigma), max_log_sigma))
            sigma_y = root * math.exp(min(max(y[first + 3 * m], min_log_sigma), max_log_sigma))
            dx = y[first] + sigma_x * normal_x
            dy = y[first + m] + sigma_y * (rho * normal_x + math.sqrt(1.0 - rho * rho) * normal_y)
            offsets[row, 0], offsets[row, 1], pens[row] = dx, dy, pen
            place[row, 0] += dx
            place[row, 1] += dy
            if x[size + 3] > 0.5:  # the pen lifted before this point, so a stroke starts here
                place[row, 2], place[row, 3] = place[row, 0], place[row, 1]
            x[size], x[size + 1] = dx, dy
            x[size + 2], x[size + 3], x[size + 4] = 0.0, 0.0, 0.0
            x[size + 2 + pen] = 1.0
            if positions:
                x[size + 5], x[size + 6] = place[row, 0] * position_scale, place[row, 1] * position_scale
                x[size + 7] = (place[row, 0] - place[row, 2]) * position_scale
                x[size + 8] = (place[row, 1] - place[row, 3]) * position_scale

    return advance, sample


if os.environ.get("DUET_COMPILED", "1") != "0":
    try:
        advance, sample = _define()
    except Exception as error:  # Numba fails in many ways on unknown systems; NumPy always works
        logging.getLogger(__name__).info("No compiled kernels (%s): sampling in NumPy.", error)
