"""The compiled kernels themselves; :mod:`sketch_core.kernels` says what each does, and goes without where Numba fails.

They stand at the top of a module, for Numba finds what it compiled before only for functions that close over nothing.
Its cache looks at this file's date alone: touch it after changing a constant that comes from elsewhere.
"""
# ruff: noqa: PLR0917
# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, check-untyped-defs=False

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as numba_intrinsic

from sketch_core.mixture import CANDIDATES, MAX_LOG_SIGMA, MAX_RHO, PEN_FLOOR, RATIO_FLOOR
from sketch_core.model import POSITION_SCALE

# What may be reordered, so that sums use whole vectors; infinities and NaN keep their meaning.
FAST_MATH = {"contract", "reassoc", "arcp", "nsz"}
compiled: Any = njit(cache=True, nogil=True, fastmath=FAST_MATH, error_model="numpy")
intrinsic: Any = numba_intrinsic

F = np.float32
HALF = F(0.5)
LIMIT = F(7.90531110763549805)
A1, A3, A5, A7 = F(4.89352455891786e-03), F(6.37261928875436e-04), F(1.48572235717979e-05), F(5.12229709037114e-08)
A9, A11, A13 = F(-8.60467152213735e-11), F(2.00018790482477e-13), F(-2.76076847742355e-16)
B0, B2, B4, B6 = F(4.89352518554385e-03), F(2.26843463243900e-03), F(1.18534705686654e-04), F(1.19825839466702e-06)


@compiled
def tanh(x):
    """Eigen's rational approximation (to 4e-7), which unlike libm's turns into vector instructions."""
    x = LIMIT if x > LIMIT else x
    x = -LIMIT if x < -LIMIT else x
    s = x * x
    p = x * (A1 + s * (A3 + s * (A5 + s * (A7 + s * (A9 + s * (A11 + s * A13))))))
    return p / (B0 + s * (B2 + s * (B4 + s * B6)))


@compiled
def advance(gates, constant, half, c, inputs):
    size = c.shape[1]
    for row in range(c.shape[0]):
        gate, add, memory, h = gates[row], constant[row], c[row], inputs[row]
        for j in range(size):
            i = HALF + HALF * tanh(half * (gate[j] + add[j]))
            forget = HALF + HALF * tanh(half * (gate[size + j] + add[size + j]))
            o = HALF + HALF * tanh(half * (gate[2 * size + j] + add[2 * size + j]))
            memory[j] = forget * memory[j] + i * tanh(gate[3 * size + j] + add[3 * size + j])
            h[j] = o * tanh(memory[j])


@compiled
def point(y, m, inverse_pi, root, min_log_sigma, u_component, normal_x, normal_y):
    """An offset drawn from y."""
    highest = y[3]
    for j in range(1, m):
        highest = max(highest, y[3 + j])
    total = 0.0
    for j in range(m):
        total += math.exp((y[3 + j] - highest) * inverse_pi)
    threshold, total, component = u_component * total, 0.0, m - 1
    for j in range(m):
        total += math.exp((y[3 + j] - highest) * inverse_pi)
        if total > threshold:
            component = j
            break
    first = 3 + m + component
    rho = min(max(math.tanh(y[first + 4 * m]), -MAX_RHO), MAX_RHO)
    sigma_x = root * math.exp(min(max(y[first + 2 * m], min_log_sigma), MAX_LOG_SIGMA))
    sigma_y = root * math.exp(min(max(y[first + 3 * m], min_log_sigma), MAX_LOG_SIGMA))
    dx = y[first] + sigma_x * normal_x
    dy = y[first + m] + sigma_y * (rho * normal_x + math.sqrt(1.0 - rho * rho) * normal_y)
    return dx, dy


@compiled
def prepare(y, m, min_log_sigma, mixture):
    """mixture (6, M): norm times π, μx, μy, 1 / σx, 1 / σy, ρ at τ = 1."""
    highest, total = y[3], 0.0
    for j in range(1, m):
        highest = max(highest, y[3 + j])
    for j in range(m):
        total += math.exp(y[3 + j] - highest)
    for j in range(m):
        first = 3 + m + j
        rho = min(max(math.tanh(y[first + 4 * m]), -MAX_RHO), MAX_RHO)
        inverse_x = math.exp(-min(max(y[first + 2 * m], min_log_sigma), MAX_LOG_SIGMA))
        inverse_y = math.exp(-min(max(y[first + 3 * m], min_log_sigma), MAX_LOG_SIGMA))
        mixture[0, j] = (
            math.exp(y[3 + j] - highest) / total * inverse_x * inverse_y / (2.0 * math.pi * math.sqrt(1.0 - rho * rho))
        )
        mixture[1, j], mixture[2, j] = y[first], y[first + m]
        mixture[3, j], mixture[4, j], mixture[5, j] = inverse_x, inverse_y, rho


@compiled
def density(mixture, dx, dy):
    total = RATIO_FLOOR
    for j in range(mixture.shape[1]):
        x, y, rho = (dx - mixture[1, j]) * mixture[3, j], (dy - mixture[2, j]) * mixture[4, j], mixture[5, j]
        squared = (x * x + y * y - 2.0 * rho * x * y) / (1.0 - rho * rho)
        if squared < 200.0:
            total += mixture[0, j] * math.exp(-0.5 * squared)
    return total


@compiled
def pen_log_prob(y, pen):
    """log q of a pen state at τ = 1."""
    highest = max(y[0], y[1], y[2])
    return y[pen] - highest - math.log(math.exp(y[0] - highest) + math.exp(y[1] - highest) + math.exp(y[2] - highest))


@compiled
def pen_chances(y):
    """q1, q2, q3 at τ = 1."""
    highest = max(y[0], y[1], y[2])
    down, lift, end = math.exp(y[0] - highest), math.exp(y[1] - highest), math.exp(y[2] - highest)
    total = down + lift + end
    return down / total, lift / total, end / total


@compiled
def feed(x, size, place, positions, dx, dy, pen):
    """Take a point as a row's next input."""
    place[0] += dx
    place[1] += dy
    if x[size + 3] > 0.5:  # the pen lifted before this point, so a stroke starts here
        place[2], place[3] = place[0], place[1]
    x[size], x[size + 1] = dx, dy
    x[size + 2], x[size + 3], x[size + 4] = 0.0, 0.0, 0.0
    x[size + 2 + pen] = 1.0
    if positions:
        x[size + 5], x[size + 6] = place[0] * POSITION_SCALE, place[1] * POSITION_SCALE
        x[size + 7], x[size + 8] = (place[0] - place[2]) * POSITION_SCALE, (place[1] - place[3]) * POSITION_SCALE


@compiled
def sample(
    outputs,
    inputs,
    own,
    references,
    guidance,
    noise,
    slots,
    ages,
    may_end,
    temperatures,
    min_log_sigma,
    place,
    positions,
    offsets,
    pens,
    gains,
):
    m = (outputs.shape[1] - 3) // 6
    size = inputs.shape[1] - (9 if positions else 5)
    mixture, mixture_reference = np.empty((6, m)), np.empty((6, m))
    found = np.empty((CANDIDATES, 4))
    for drawing in range(own.shape[0]):
        row, reference = own[drawing], references[drawing]
        chance = noise[slots[drawing], ages[drawing]]
        inverse_pi, inverse_pen, root = temperatures[drawing]
        y = outputs[row]
        down, lift, end = y[0] * inverse_pen, y[1] * inverse_pen, y[2] * inverse_pen
        if reference >= 0:
            y_reference = outputs[reference]
            weight = guidance[drawing, 1]
            q, q_reference = pen_chances(y), pen_chances(y_reference)
            down += weight * math.log((q[0] + PEN_FLOOR) / (q_reference[0] + PEN_FLOOR))
            lift += weight * math.log((q[1] + PEN_FLOOR) / (q_reference[1] + PEN_FLOOR))
            end += weight * math.log((q[2] + PEN_FLOOR) / (q_reference[2] + PEN_FLOOR))
        ending = ages[drawing] > 0 or may_end[drawing]
        highest = max(down, lift, end) if ending else max(down, lift)
        p_down, p_lift = math.exp(down - highest), math.exp(lift - highest)
        p_end = math.exp(end - highest) if ending else 0.0
        threshold = chance[0] * (p_down + p_lift + p_end)
        pen = 0 if p_down > threshold else 1 if p_down + p_lift > threshold else 2
        if reference < 0:
            dx, dy = point(y, m, inverse_pi, root, min_log_sigma, chance[2], chance[3], chance[4])
        else:
            prepare(y, m, min_log_sigma, mixture)
            prepare(outputs[reference], m, min_log_sigma, mixture_reference)
            highest = -1e300
            for k in range(CANDIDATES):
                dx, dy = point(
                    y, m, inverse_pi, root, min_log_sigma, chance[2 + 3 * k], chance[3 + 3 * k], chance[4 + 3 * k]
                )
                ratio = density(mixture, dx, dy) / density(mixture_reference, dx, dy)
                found[k, 0], found[k, 1], found[k, 3] = dx, dy, math.log(ratio)
                found[k, 2] = guidance[drawing, 0] * found[k, 3]
                highest = max(highest, found[k, 2])
            total = 0.0
            for k in range(CANDIDATES):
                total += math.exp(found[k, 2] - highest)
            threshold, total, chosen = chance[1] * total, 0.0, CANDIDATES - 1
            for k in range(CANDIDATES):
                total += math.exp(found[k, 2] - highest)
                if total > threshold:
                    chosen = k
                    break
            dx, dy = found[chosen, 0], found[chosen, 1]
            gain = pen_log_prob(y, pen) - pen_log_prob(y_reference, pen)
            if pen < 2:
                gain += found[chosen, 3]
            gains[drawing] = gain
            feed(inputs[reference], size, place[reference], positions, dx, dy, pen)
        feed(inputs[row], size, place[row], positions, dx, dy, pen)
        offsets[drawing, 0], offsets[drawing, 1], pens[drawing] = dx, dy, pen


@intrinsic
def low_half(context, pair):
    """The number whose bf16 bits are the lower half: single precision but for the bits that bf16 leaves out."""

    def generate(context, builder, signature, arguments):
        bits = builder.shl(arguments[0], ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def high_half(context, pair):
    """The number whose bf16 bits are the upper half."""

    def generate(context, builder, signature, arguments):
        bits = builder.and_(arguments[0], ir.Constant(ir.IntType(32), 0xFFFF0000))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.uint32), generate


@compiled
def few_products(pairs, w_points, inputs, gates):
    # Several sums at a time, so that none waits for its own last addition; two rows share what is read and widened.
    half = pairs.shape[1]
    paired = inputs.shape[0] - inputs.shape[0] % 2
    for row in range(0, paired, 2):
        x, y, gate = inputs[row, :half], inputs[row, half : 2 * half], gates[row]
        x_next, y_next, gate_next = inputs[row + 1, :half], inputs[row + 1, half : 2 * half], gates[row + 1]
        for r in range(0, pairs.shape[0], 4):
            p0, p1, p2, p3 = pairs[r], pairs[r + 1], pairs[r + 2], pairs[r + 3]
            a0, a1, a2, a3 = F(0.0), F(0.0), F(0.0), F(0.0)
            b0, b1, b2, b3 = F(0.0), F(0.0), F(0.0), F(0.0)
            for j in range(half):
                u, v, u_next, v_next = x[j], y[j], x_next[j], y_next[j]
                low, high = low_half(p0[j]), high_half(p0[j])
                a0 += low * u + high * v
                b0 += low * u_next + high * v_next
                low, high = low_half(p1[j]), high_half(p1[j])
                a1 += low * u + high * v
                b1 += low * u_next + high * v_next
                low, high = low_half(p2[j]), high_half(p2[j])
                a2 += low * u + high * v
                b2 += low * u_next + high * v_next
                low, high = low_half(p3[j]), high_half(p3[j])
                a3 += low * u + high * v
                b3 += low * u_next + high * v_next
            gate[r], gate[r + 1], gate[r + 2], gate[r + 3] = a0, a1, a2, a3
            gate_next[r], gate_next[r + 1], gate_next[r + 2], gate_next[r + 3] = b0, b1, b2, b3
    for row in range(paired, inputs.shape[0]):
        x, y, gate = inputs[row, :half], inputs[row, half : 2 * half], gates[row]
        for r in range(0, pairs.shape[0], 8):
            p0, p1, p2, p3 = pairs[r], pairs[r + 1], pairs[r + 2], pairs[r + 3]
            p4, p5, p6, p7 = pairs[r + 4], pairs[r + 5], pairs[r + 6], pairs[r + 7]
            a0, a1, a2, a3 = F(0.0), F(0.0), F(0.0), F(0.0)
            a4, a5, a6, a7 = F(0.0), F(0.0), F(0.0), F(0.0)
            for j in range(half):
                u, v = x[j], y[j]
                a0 += low_half(p0[j]) * u + high_half(p0[j]) * v
                a1 += low_half(p1[j]) * u + high_half(p1[j]) * v
                a2 += low_half(p2[j]) * u + high_half(p2[j]) * v
                a3 += low_half(p3[j]) * u + high_half(p3[j]) * v
                a4 += low_half(p4[j]) * u + high_half(p4[j]) * v
                a5 += low_half(p5[j]) * u + high_half(p5[j]) * v
                a6 += low_half(p6[j]) * u + high_half(p6[j]) * v
                a7 += low_half(p7[j]) * u + high_half(p7[j]) * v
            gate[r], gate[r + 1], gate[r + 2], gate[r + 3] = a0, a1, a2, a3
            gate[r + 4], gate[r + 5], gate[r + 6], gate[r + 7] = a4, a5, a6, a7
    for row in range(inputs.shape[0]):
        gate = gates[row]
        for k in range(w_points.shape[0]):
            x, w = inputs[row, 2 * half + k], w_points[k]
            if x != F(0.0):  # two of the three pen states are
                for r in range(w.shape[0]):
                    gate[r] += x * w[r]


@compiled
def project(inputs, w_out, b_out, outputs):
    """y (B, 6M + 3) from h, the first columns of the inputs."""
    for row in range(outputs.shape[0]):
        y, h = outputs[row], inputs[row, : w_out.shape[1]]
        for k in range(0, w_out.shape[0], 3):  # 6M + 3 of them
            w0, w1, w2 = w_out[k], w_out[k + 1], w_out[k + 2]
            a0, a1, a2 = F(0.0), F(0.0), F(0.0)
            for j in range(h.shape[0]):
                a0 += w0[j] * h[j]
                a1 += w1[j] * h[j]
                a2 += w2[j] * h[j]
            y[k], y[k + 1], y[k + 2] = a0 + b_out[k], a1 + b_out[k + 1], a2 + b_out[k + 2]


@compiled
def finish_step(gates, constant, c, w_out, b_out, outputs, inputs, *chances):
    advance(gates, constant, HALF, c, inputs)
    project(inputs, w_out, b_out, outputs)
    sample(outputs, inputs, *chances)


@compiled
def few_step(pairs, w_points, gates, constant, c, w_out, b_out, outputs, inputs, *chances):
    few_products(pairs, w_points, inputs, gates)
    finish_step(gates, constant, c, w_out, b_out, outputs, inputs, *chances)


@compiled
def read_few(pairs, w_points, gates, constant, c, inputs, place, positions, points, outputs):
    size = c.shape[1]
    for t in range(points.shape[1]):
        few_products(pairs, w_points, inputs, gates)
        advance(gates, constant, HALF, c, inputs)
        for row in range(points.shape[0]):
            outputs[row, t] = inputs[row, :size]
            given = points[row, t]
            pen = 0 if given[2] > 0.5 else 1 if given[3] > 0.5 else 2
            feed(inputs[row], size, place[row], positions, given[0], given[1], pen)


@compiled
def rdp_keep(points, epsilon, keep):
    spans = [(0, points.shape[0] - 1)]
    while spans:
        first, last = spans.pop()
        x, y = points[first, 0], points[first, 1]
        chord_x, chord_y = points[last, 0] - x, points[last, 1] - y
        squared = chord_x * chord_x + chord_y * chord_y
        middle, farthest = 0, epsilon
        for i in range(first + 1, last):
            dx, dy = points[i, 0] - x, points[i, 1] - y
            along = min(max((dx * chord_x + dy * chord_y) / squared, 0.0), 1.0) if squared > 0.0 else 0.0
            distance = math.hypot(dx - along * chord_x, dy - along * chord_y)
            if distance > farthest:
                middle, farthest = i, distance
        if middle:
            keep[middle] = True
            spans.append((first, middle))
            spans.append((middle, last))
