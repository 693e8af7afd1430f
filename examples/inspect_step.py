"""Print what the network expects at one step: python -m examples.inspect_step [STEP]

Each step is a mixture of M bivariate Gaussians for the offset, and three probabilities for the pen (paper, equations
3 to 7). Here the mixture before and the loss after each point of a triangle, and one step in full.
"""

import sys

import numpy as np

import sketch_core

triangle = [np.array([[100.0, 300.0], [250.0, 80.0], [400.0, 300.0], [100.0, 300.0]])]
sketcher = sketch_core.load()
found = sketch_core.inspect(sketcher, triangle, "tent")

n = len(found.l_s)
print("step   stroke-5 that is fed (normalised)       L_s     L_p   (nats of the point that came)")
for step in range(n):
    row = " ".join(f"{value:6.2f}" for value in found.stroke5[step])
    print(f"{step:4}   {row}   {found.l_s[step]:7.3f} {found.l_p[step]:7.3f}")
print(f"sums: L_s {found.l_s.sum():.3f}, L_p {found.l_p.sum():.3f}; z has {len(found.z_mu)} numbers\n")

step = int(sys.argv[1]) if len(sys.argv) > 1 else n  # n: what comes after the triangle
if not 0 <= step <= n:
    sys.exit(f"STEP must lie between 0 and {n}.")
x, y = found.pen[step]
down, lift, end = found.pen_probabilities[step]
print(f"step {step}: the pen is at ({x:.0f}, {y:.0f}); p(down) {down:.3f}, p(lift) {lift:.3f}, p(end) {end:.3f}")
print("   π       μx      μy      σx      σy       ρ    (pixels; the five likeliest components)")
for j in np.argsort(-found.pi[step])[:5]:
    mu, sigma = found.mu[step, j], found.sigma[step, j]
    print(f"{found.pi[step, j]:.3f} {mu[0]:8.1f}{mu[1]:8.1f}{sigma[0]:8.1f}{sigma[1]:8.1f}{found.rho[step, j]:8.2f}")
