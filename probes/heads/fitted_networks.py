"""A trained head after fitting: a network for each candidate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from .network import BLOCK, Network


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedNetworks:
    """Each candidate's best epoch."""

    networks: tuple[Network, ...]
    """S, of one head each."""
    best_epochs: tuple[int, ...]
    """S: the epoch whose weights these are, from 1; 0 for first weights."""
    samples_seen: int
    """Of all candidates that were trained."""
    notes_of: tuple[str, ...] = ()
    """S: what a reader should know of each candidate; empty for nothing."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the candidates that there is something to say of."""
        return tuple(note for note in self.notes_of if note)

    @property
    def chosen(self) -> None:
        """None: validation chooses."""

    def at(self, index: int) -> FittedNetworks:
        """The same with one of its candidates alone."""
        return replace(
            self,
            networks=(self.networks[index],),
            best_epochs=(self.best_epochs[index],),
            notes_of=(self.notes_of[index],),
        )

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the most likely class."""
        found: np.ndarray = self._scores(x_MD).max(1).indices.cpu().numpy()
        return found

    def probabilities(self, x_MD: torch.Tensor) -> np.ndarray:
        """float32 [S, M, K]: softmax of the scores."""
        found: np.ndarray = self._scores(x_MD).softmax(1).transpose(1, 2).contiguous().cpu().numpy()
        return found

    @torch.no_grad()
    def _scores(self, x_MD: torch.Tensor) -> torch.Tensor:
        """float32 [S, K, M]."""
        device = self.networks[0].device
        return torch.cat(
            [
                torch.cat([network.scores([rows.to(device, torch.float32)[None]]) for network in self.networks])
                for rows in x_MD.split(BLOCK)
            ],
            dim=2,
        )
