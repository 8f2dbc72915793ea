"""What all sections of a config share."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`. Did you mean …?` with the nearest known word, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {near[0]!r}?" if near else ""
