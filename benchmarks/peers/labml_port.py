"""labml-nn's port of SketchRNN with random weights: for each line "n" on stdin it samples n points and answers
with the milliseconds that took. Runs in an environment of its own (see benchmarks/sampling.py --install)."""

from __future__ import annotations

import json
import sys
import time

import torch
from labml_nn.sketch_rnn import DecoderRNN, EncoderRNN, Sampler

torch.set_num_threads(1)
encoder, decoder = EncoderRNN(128, 256).eval(), DecoderRNN(128, 512, 20).eval()
with torch.no_grad():
    decoder.q_head.bias[2] = -1e9  # never ends by itself, so that exactly n points are drawn
sampler = Sampler(encoder, decoder)
Sampler.plot = staticmethod(lambda seq: None)
for line in sys.stdin:
    data = torch.zeros(int(line), 1, 5)
    data[:, :, 2] = 1.0
    began = time.perf_counter()
    with torch.no_grad():
        sampler.sample(data, 0.4)
    print(json.dumps({"ms": (time.perf_counter() - began) * 1e3}), flush=True)
