"""SketchRNN: encoder, decoder, and the network that holds both (Ha & Eck, section 3.2).

One network does three jobs. With z it reconstructs and varies a drawing; without z (z dropout) it draws
freely or completes a start; a category embedding, dropped for part of each batch, joins z wherever the
paper has z, so that one set of weights serves every category and "any".
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

POSITION_INPUTS = 4
# Positions run to several scale factors from the start; this brings them to the size of the other inputs.
POSITION_SCALE = 0.25
INITIAL_MU_STD = 0.12
INITIAL_SIGMA_HAT = -3.0


@dataclass(frozen=True)
class SketchRNNConfig:
    """Sizes of the network. The defaults are the shipped network; :meth:`paper` gives the paper's own."""

    n_categories: int = 0
    """Number of categories; 0 leaves the category embedding out (the paper's network)."""
    category_size: int = 64
    """Width of the category embedding."""
    encoder_size: int = 256
    """LSTM units of the encoder, each way; 0 leaves encoder and z out (decoder-only)."""
    decoder_size: int = 512
    """LSTM units of the decoder."""
    z_size: int = 128
    """N_z, the length of the latent vector z."""
    n_mixtures: int = 20
    """M, the number of bivariate Gaussians."""
    positions: bool = True
    """Give the decoder the pen's place: from the drawing's first point and from its stroke's first point."""
    min_sigma: float = 0.01
    """Floor of σ in normalised units; keeps single points (whole pixels in the data) from infinite density."""

    def __post_init__(self) -> None:
        for name in ("n_categories", "category_size", "encoder_size", "z_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative.")
        for name in ("decoder_size", "n_mixtures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1.")
        if not 0 <= self.min_sigma < math.inf:
            raise ValueError("min_sigma must be a number and not negative.")
        if self.encoder_size and not self.z_size:
            raise ValueError("An encoder needs a z_size of at least 1; encoder_size 0 leaves both out.")

    @classmethod
    def paper(cls, *, decoder_only: bool = False) -> SketchRNNConfig:
        """The paper's set-up in Magenta's sizes: no categories, no positions, no floor under σ."""
        return cls(
            encoder_size=0 if decoder_only else 256, z_size=0 if decoder_only else 128, category_size=0, positions=False
        )

    @property
    def has_encoder(self) -> bool:
        return self.encoder_size > 0

    @property
    def condition_size(self) -> int:
        """Width of what stays the same over a drawing: z and the category embedding."""
        return (self.z_size if self.has_encoder else 0) + (self.category_size if self.n_categories else 0)

    @property
    def point_size(self) -> int:
        """Width of what changes at each step: stroke5, and the positions where they are used."""
        return 5 + (POSITION_INPUTS if self.positions else 0)

    @property
    def output_size(self) -> int:
        """6M + 3 numbers a step."""
        return 6 * self.n_mixtures + 3

    def as_dict(self) -> dict[str, int | float | bool]:
        return dataclasses.asdict(self)


def pen_positions(previous: Tensor) -> Tensor:
    """Where the pen is at each step, as extra inputs of the decoder.

    Args:
        previous: (B, T, 5), the decoder's inputs in stroke5, the start token first.

    Returns:
        (B, T, 4): the pen's place measured from the drawing's first point, and from the first point of the
        stroke the pen is in (after a lift: of the stroke it has just left), times ``POSITION_SCALE``.
    """
    place = previous[..., :2].cumsum(dim=1)  # (B, T, 2)
    steps = torch.arange(previous.shape[1], device=previous.device)
    # A point starts a stroke if the pen lifted after the one before it.
    starts = torch.zeros(previous.shape[:2], dtype=torch.long, device=previous.device)  # (B, T)
    starts[:, 1:] = (previous[:, :-1, 3] > 0.5) * steps[1:]
    stroke_start = starts.cummax(dim=1).values.unsqueeze(-1).expand(-1, -1, 2)
    return torch.cat([place, place - place.gather(1, stroke_start)], dim=-1) * POSITION_SCALE


class Encoder(nn.Module):
    """Bidirectional LSTM over stroke5, then linear layers for μ and σ̂ (paper, equations 1 and 2).

    Two one-way LSTMs and a gather reverse each row by its own length: packed sequences cost half as much
    again on a CPU.
    """

    def __init__(self, config: SketchRNNConfig) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(5, config.encoder_size, batch_first=True)
        self.backward_lstm = nn.LSTM(5, config.encoder_size, batch_first=True)
        self.mu = nn.Linear(2 * config.encoder_size, config.z_size)
        self.sigma_hat = nn.Linear(2 * config.encoder_size, config.z_size)

    def forward(self, stroke5: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            stroke5: (B, T, 5) points without start token; rows from ``lengths`` on are padding, not read.
            lengths: (B,) number of points of each drawing, at least 1.

        Returns:
            mu (B, N_z) and sigma_hat (B, N_z), with σ = exp(σ̂ / 2).
        """
        batch, steps, _ = stroke5.shape
        last = lengths - 1  # (B,)
        order = torch.arange(steps, device=stroke5.device).expand(batch, steps)
        reverse = (last.unsqueeze(1) - order).clamp_min(0)  # (B, T)
        backwards = stroke5.gather(1, reverse.unsqueeze(-1).expand(-1, -1, 5))
        rows = torch.arange(batch, device=stroke5.device)
        h_forward = self.forward_lstm(stroke5)[0][rows, last]
        h_backward = self.backward_lstm(backwards)[0][rows, last]
        h = torch.cat([h_forward, h_backward], dim=-1)  # (B, 512)
        return self.mu(h), self.sigma_hat(h)


class Decoder(nn.Module):
    """Autoregressive LSTM whose every step gives the parameters of the next point (paper, equations 3-6)."""

    def __init__(self, config: SketchRNNConfig) -> None:
        super().__init__()
        self.config = config
        if config.condition_size:
            self.initial = nn.Linear(config.condition_size, 2 * config.decoder_size)  # [h0; c0]
        self.lstm = nn.LSTM(config.point_size + config.condition_size, config.decoder_size, batch_first=True)
        self.dropout = 0.0
        """Training only: share of the LSTM's outputs (not of its memory) left out on the way to y."""
        self.weight_dropout = 0.0
        """Training only: share of the recurrent weights left out, drawn anew for each batch (DropConnect on
        h's way to the gates, Merity et al. 2017): regularises the memory without making it forget."""
        self.output = nn.Linear(config.decoder_size, config.output_size)

    def initial_state(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """[h0; c0] = tanh(W z + b); zeros where there is nothing to condition on.

        Args:
            condition: (B, condition_size).

        Returns:
            h0 and c0, (B, decoder_size) each.
        """
        if not self.config.condition_size:
            zeros = condition.new_zeros(condition.shape[0], self.config.decoder_size)
            return zeros, zeros
        h0, c0 = torch.tanh(self.initial(condition)).chunk(2, dim=-1)
        return h0, c0

    def _lstm(self, inputs: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (B, T, decoder_size) and the last h and c (1, B, decoder_size)."""
        if self.training and self.weight_dropout:
            w_ih, w_hh, *biases = self.lstm.all_weights[0]
            dropped = nn.functional.dropout(w_hh, self.weight_dropout)
            return torch.lstm(inputs, (h, c), [w_ih, dropped, *biases], True, 1, 0.0, True, False, True)
        outputs, (h, c) = self.lstm(inputs, (h, c))
        return outputs, h, c

    def forward(
        self, previous: Tensor, condition: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """
        Args:
            previous: (B, T, 5), the point before each step; the first is the start token (0, 0, 1, 0, 0).
            condition: (B, condition_size), z and the category embedding.
            state: (h, c) to go on from, (B, decoder_size) each; the initial state by default. With
                positions, ``previous`` must nevertheless start at the drawing's start.

        Returns:
            y (B, T, 6M + 3), raw (see :mod:`sketch_core.mixture`), and the state after the last step.
        """
        h, c = state or self.initial_state(condition)
        inputs = [previous]
        if self.config.positions:
            inputs.append(pen_positions(previous))
        if self.config.condition_size:
            inputs.append(condition.unsqueeze(1).expand(-1, previous.shape[1], -1))
        outputs, h, c = self._lstm(torch.cat(inputs, dim=-1), h.unsqueeze(0).contiguous(), c.unsqueeze(0).contiguous())
        outputs = nn.functional.dropout(outputs, self.dropout, self.training)
        return self.output(outputs), (h.squeeze(0), c.squeeze(0))


class SketchRNN(nn.Module):
    """Encoder, category embedding and decoder, with the scale factor and N_max they were trained for."""

    scale_factor: Tensor
    n_max: Tensor

    def __init__(self, config: SketchRNNConfig, scale_factor: float = 1.0, n_max: int = 250) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.has_encoder else None
        # The last row is "any category".
        self.category = nn.Embedding(config.n_categories + 1, config.category_size) if config.n_categories else None
        self.decoder = Decoder(config)
        # Buffers, so that weights cannot be used with another scale than their own.
        self.register_buffer("scale_factor", torch.tensor(float(scale_factor)))
        self.register_buffer("n_max", torch.tensor(int(n_max)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Orthogonal recurrent weights and forget bias 1, as in the paper's code."""
        for module in self.modules():
            if isinstance(module, nn.LSTM):
                for name, parameter in module.named_parameters():
                    if name.startswith("weight_hh"):
                        for gate in parameter.data.chunk(4):
                            nn.init.orthogonal_(gate)
                    elif name.startswith("weight_ih"):
                        nn.init.xavier_uniform_(parameter)
                    else:
                        nn.init.zeros_(parameter)
                # Gate order i, f, g, o; PyTorch adds two biases, so the forget gate gets its 1 in one of them.
                size = module.hidden_size
                dict(module.named_parameters())["bias_ih_l0"].data[size : 2 * size] = 1.0
        if self.encoder is not None:
            # z starts wide and nearly free of noise. From the paper's code (N(0, 0.001) for both, so σ = 1 and
            # μ = 0) the decoder learned to do without z within minutes and L_KL sank to its floor: at 15
            # minutes a sampled z was worth 0.03 nats a step in training; from here, 0.07 after one minute.
            nn.init.normal_(self.encoder.mu.weight, std=INITIAL_MU_STD)
            nn.init.zeros_(self.encoder.mu.bias)
            nn.init.zeros_(self.encoder.sigma_hat.weight)
            nn.init.constant_(self.encoder.sigma_hat.bias, INITIAL_SIGMA_HAT)
        if self.config.condition_size:
            nn.init.normal_(self.decoder.initial.weight, std=0.02)
            nn.init.zeros_(self.decoder.initial.bias)
        nn.init.xavier_uniform_(self.decoder.output.weight)
        nn.init.zeros_(self.decoder.output.bias)
        if self.category is not None:
            nn.init.normal_(self.category.weight, std=0.5)

    @property
    def any_category(self) -> int:
        """Index that stands for "any category"."""
        return self.config.n_categories

    def condition(self, z: Tensor | None, category: Tensor | None, batch: int = 1) -> Tensor:
        """What stays the same over a drawing, (B, condition_size): [z; category embedding].

        Args:
            z: (B, N_z); ``None`` means without z, for which zeros stand.
            category: (B,) indices, ``any_category`` for any; ``None`` means any for all.
            batch: B where neither is given.
        """
        if z is not None:
            batch = z.shape[0]
        elif category is not None:
            batch = category.shape[0]
        weight = self.decoder.output.weight
        parts = []
        if self.config.has_encoder:
            parts.append(weight.new_zeros(batch, self.config.z_size) if z is None else z)
        if self.category is not None:
            if category is None:
                category = torch.full((batch,), self.any_category, device=weight.device)
            parts.append(self.category(category))
        return torch.cat(parts, dim=-1) if parts else weight.new_zeros(batch, 0)

    def encode(self, stroke5: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ̂ of drawings; see :class:`Encoder`.

        Raises:
            ValueError: a decoder-only network.
        """
        if self.encoder is None:
            raise ValueError("This network has no encoder, so it cannot vary or blend drawings.")
        mu, sigma_hat = self.encoder(stroke5, lengths)
        return mu, sigma_hat

    def forward(self, previous: Tensor, z: Tensor | None, category: Tensor | None) -> Tensor:
        """y (B, T, 6M + 3) for each step of ``previous`` (B, T, 5); see :class:`Decoder`."""
        y: Tensor = self.decoder(previous, self.condition(z, category, previous.shape[0]))[0]
        return y
