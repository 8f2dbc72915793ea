"""Words for what a synthetic clip shows, and the pairs of words kept out of training."""

from vidcls_batch.synthetic.motions import LABELS
from vidcls_batch.synthetic.shapes import COLOURS


def caption(*, label: str, shape: str | None = None, colour: str | None = None) -> str:
    """
    >>> caption(label="moving left", shape="star", colour="red")
    'a red star moving left'
    >>> caption(label="growing", colour="blue")
    'a blue shape growing'
    """
    thing = " ".join(word for word in (colour, shape or "shape") if word)
    return f"a {thing} {label}"


def _two_colours_per_motion() -> frozenset[tuple[str, str]]:
    colours = list(COLOURS)
    pairs = set()
    for index, label in enumerate(LABELS):
        first = index % len(colours)
        second = (first + 2 + index // len(colours)) % len(colours)
        pairs |= {(colours[first], label), (colours[second], label)}
    return frozenset(pairs)


UNSEEN_PAIRS: frozenset[tuple[str, str]] = _two_colours_per_motion()
"""(colour, motion) pairs that no training clip shows and no training caption names; each word of them does occur."""

UNSEEN_NAMES: tuple[str, ...] = tuple(
    caption(label=label, colour=colour) for label in LABELS for colour in COLOURS if (colour, label) in UNSEEN_PAIRS
)
"""The pairs as class names, two per motion: the zero-shot test of a contrastive model."""
