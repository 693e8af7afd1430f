"""The plain loop: what one writes first, and what the published PyTorch ports do (with fewer detours)."""

from __future__ import annotations

import torch
from torch import nn

N_MIXTURES = 20


class PlainDecoder(nn.Module):
    """``nn.LSTMCell`` and a linear layer, one step at a time, ``multinomial`` and ``.item()`` in the loop."""

    def __init__(self, hidden: int = 512, z_size: int = 128) -> None:
        super().__init__()
        self.hidden, self.z_size = hidden, z_size
        self.initial = nn.Linear(z_size, 2 * hidden)
        self.cell = nn.LSTMCell(5 + z_size, hidden)
        self.output = nn.Linear(hidden, 6 * N_MIXTURES + 3)

    @torch.no_grad()
    def draw(self, n_points: int, batch: int = 1, temperature: float = 0.4) -> torch.Tensor:
        """(n_points, batch, 5) stroke5 of random drawings; the end state is drawn, but does not end them."""
        z = torch.randn(batch, self.z_size)
        h, c = torch.tanh(self.initial(z)).chunk(2, dim=1)
        point = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]).repeat(batch, 1)
        points = []
        for _ in range(n_points):
            h, c = self.cell(torch.cat([point, z], dim=1), (h, c))
            y = self.output(h)
            pen_logits = y[:, :3] / temperature
            pi, mu_x, mu_y, sigma_x, sigma_y, rho = torch.split(y[:, 3:], N_MIXTURES, dim=1)
            component = torch.multinomial(torch.softmax(pi / temperature, dim=1), 1)
            mu_x, mu_y, sigma_x, sigma_y, rho = (v.gather(1, component) for v in (mu_x, mu_y, sigma_x, sigma_y, rho))
            sigma_x, sigma_y, rho = sigma_x.exp() * temperature**0.5, sigma_y.exp() * temperature**0.5, torch.tanh(rho)
            noise = torch.randn(batch, 2)
            dx = mu_x + sigma_x * noise[:, :1]
            dy = mu_y + sigma_y * (rho * noise[:, :1] + (1 - rho**2).sqrt() * noise[:, 1:])
            pens = torch.multinomial(torch.softmax(pen_logits, dim=1), 1)
            point = torch.zeros(batch, 5)
            for row in range(batch):
                point[row, 0], point[row, 1] = dx[row].item(), dy[row].item()
                point[row, 2 + pens[row].item()] = 1.0
            points.append(point)
        return torch.stack(points)
