"""What the worker must equal: one session after the other, one click at a time, with torch's own cell."""

from collections.abc import Mapping

import numpy as np
import torch

from schemas.click import Click
from schemas.model_artefact import Artefact
from schemas.recommendation import Recommendation


class PlainReference:
    """A model of an artefact, served without batches, waves or tables."""

    def __init__(self, artefact: Artefact) -> None:
        tensors = {name: torch.from_numpy(array.copy()) for name, array in artefact.tensors.items()}
        hidden = artefact.manifest.architecture.hidden_size
        self._cell = torch.nn.GRUCell(hidden, hidden)
        self._cell.load_state_dict(
            {
                "weight_ih": tensors["w_ih"],
                "weight_hh": tensors["w_hh"],
                "bias_ih": tensors["b_ih"],
                "bias_hh": tensors["b_hh"],
            }
        )
        self._tensors = tensors
        self._temperature = artefact.manifest.architecture.temperature
        self._items = {item: row for row, item in enumerate(artefact.items)}
        self._states: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def scores(self, click: Click) -> torch.Tensor:
        """Scores [V] of all items after this click of its session."""
        x = self._tensors["embedding"][self._items[click.item_id]].unsqueeze(0)
        state = self._states.get(click.session_id, torch.zeros_like(x))
        state = self._states[click.session_id] = self._cell(x, state)
        query = state @ self._tensors["query_hidden"].T + x @ self._tensors["query_item"].T
        return self._temperature * torch.cosine_similarity(query, self._tensors["embedding"])


def assert_equals_reference(
    clicks: list[Click], found: Mapping[str, Recommendation], artefact: Artefact
) -> None:
    """Every recommendation has the items and scores of the plain reference, to 1e-4."""
    torch.set_num_threads(1)  # two would wait for each other at each tiny product, on cores that others use
    reference = PlainReference(artefact)
    for click in clicks:
        expected = reference.scores(click)
        recommendation = found[click.event_id]
        rows = [artefact.items.index(item) for item in recommendation.items]
        assert recommendation.session_id == click.session_id
        assert len(set(rows)) == len(rows) == 20
        np.testing.assert_allclose(recommendation.scores, expected[rows], atol=1e-4)
        np.testing.assert_allclose(recommendation.scores, expected.topk(20).values, atol=1e-4)
