"""libav's error messages: heard while a file is open, kept, not printed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Message = tuple[int, str, str]  # level, component, text

# Said where decoding begins at an H.264 open GOP: "forget that picture", of a picture before the beginning.
_HARMLESS = "mmco: unref short failure"


@contextmanager
def hearing_errors() -> Iterator[list[Message]]:
    """Collect what libav says is wrong, in the order it is said; also lets exceptions carry libav's own words.

    PyAV's settings are of the process: not for two threads at once.
    """
    import av

    level, skips_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    if level is None:
        av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture(local=False) as messages:  # not local: decoder threads speak too
            yield messages
    finally:
        av.logging.set_skip_repeated(skips_repeated)
        av.logging.set_level(level)


def tells_of_damage(messages: Sequence[Message]) -> bool:
    """Whether a picture may be wrong after `messages`."""
    import av

    return any(level <= av.logging.ERROR and not text.startswith(_HARMLESS) for level, _, text in messages)
