"""How good members and their ensemble are on cached clips with known labels."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vidcls_batch.config import MemberConfig
from vidcls_batch.labeling.ensemble import softmax, weighted_mean
from vidcls_batch.models.base import Sound
from vidcls_batch.models.registry import load_member
from vidcls_batch.training.clip_cache import CachedClips

Probabilities = NDArray[np.float64]  # [N, K], each row sums to 1
ClassIds = NDArray[np.int64]


def member_probabilities(
    member: MemberConfig, clips: CachedClips, *, labels: Sequence[str], batch_size: int = 32
) -> Probabilities:
    """What a member says of each clip, over `labels` in their order, float64 [N, K].

    The clips' frames must be the member's own sampling at its own size, their sound its own window.

    Raises what loading the member raises.
    """
    loaded = load_member(member, labels=tuple(labels), device="cpu")
    order = [loaded.labels.index(label) for label in labels]
    parts = []
    for start in range(0, len(clips.rows), batch_size):
        batch = slice(start, start + batch_size)
        frames = None if loaded.input is None else torch.from_numpy(np.array(clips.frames[batch]))
        sound = None
        if loaded.sound is not None:
            lengths = torch.from_numpy(clips.lengths[batch])
            sound = Sound(torch.from_numpy(np.array(clips.samples[batch])), lengths, loaded.sound.sample_rate)
        parts.append(softmax(loaded.logits(frames, sound).numpy()).mean(axis=1)[:, order])
    return np.concatenate(parts)


def accuracy(probabilities: Probabilities, truth: ClassIds) -> float:
    """Share of clips whose most probable class is the true one."""
    return float(np.mean(probabilities.argmax(axis=1) == truth))


def choose_weights(probabilities: Sequence[Probabilities], truth: ClassIds, *, steps: int = 10) -> tuple[float, ...]:
    """The members' weights, multiples of 1/steps that sum to 1, under which the truth is most likely.

    Likelihood, not accuracy: it still tells weights apart where a few hundred clips give the same accuracy. Give it
    clips that are used for nothing else.
    """
    rows = np.arange(len(truth))

    def mean_log_likelihood(weights: tuple[float, ...]) -> float:
        return float(np.log(weighted_mean(probabilities, weights)[rows, truth] + 1e-12).mean())

    return max(_weight_grid(len(probabilities), steps), key=mean_log_likelihood)


def _weight_grid(members: int, steps: int) -> Iterator[tuple[float, ...]]:
    def shares(left: int, places: int) -> Iterator[tuple[int, ...]]:
        if places == 1:
            yield (left,)
            return
        for share in range(left + 1):
            for rest in shares(left - share, places - 1):
                yield (share, *rest)

    for split in shares(steps, members):
        yield tuple(share / steps for share in split)
