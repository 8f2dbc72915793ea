"""A family that misbehaves where it is asked to: in the classifiers of a cluster only, never in the driver."""

import ray
import torch

from vidcls_batch.models.base import Scores
from vidcls_batch.models.recipes import square
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.types import Sampling


def in_an_actor() -> bool:
    return ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


class MeanColour(torch.nn.Linear):
    """Labels by the mean colour; `ValueError` when made in an actor."""

    def __init__(self, num_labels: int) -> None:
        super().__init__(3, num_labels)
        if in_an_actor():
            raise ValueError("no such library on this worker")

    def forward(self, pixels: torch.Tensor) -> Scores:
        return Scores(logits=super().forward(pixels.mean(dim=(1, 3, 4))))


LOST_ON_WORKERS = StateDictFamily(
    build=MeanColour,
    head_weight="weight",
    sampling=Sampling(4),
    recipe=lambda short_side: square(short_side, 16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    embedding_dim=None,
)
