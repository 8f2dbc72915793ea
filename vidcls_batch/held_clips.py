"""Clips whose object could not be had, put by for another try: a store that is down for a minute is not their fault."""

from collections import defaultdict

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.errors import Status

# Of these another try finds the same: the rows are written at once.
FINAL_CODES = ("not_found", "permission", "is_directory", "bad_uri", "uri_not_allowed")
# With clips of more units put by than this, nothing would be committed for long: they are tried again at once, before
# what is left of the pass.
MOST_HELD_UNITS = 32
# Before each further try, seconds. With the tries of each fetch beside them, an outage of some minutes passes.
PAUSES_S = (5.0, 30.0)


class HeldClips:
    """Rows of `schema.result_schema` that say fetch_error for a reason that may pass."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str], pa.Table] = {}

    def sift(self, rows: pa.Table) -> pa.Table:
        """Keep the rows to be tried again; returns the others."""
        if Status.FETCH_ERROR.value not in rows["status"].to_pylist():
            return rows
        wanted = pc.and_(
            pc.equal(rows["status"], Status.FETCH_ERROR.value),
            pc.invert(pc.is_in(rows["error_code"], value_set=pa.array(FINAL_CODES))),
        ).combine_chunks()
        if not pc.any(wanted).as_py():
            return rows
        held = rows.filter(wanted)
        for index, key in enumerate(zip(held["unit"].to_pylist(), held["clip_id"].to_pylist(), strict=True)):
            self._rows[key] = held.take([index])  # a copy: a slice keeps the whole block alive
        return rows.filter(pc.invert(wanted))

    def take_all(self) -> dict[int, list[str]]:
        """Clip ids by unit, to be tried again; what comes back with an error is held anew."""
        clips = self.clips
        self._rows.clear()
        return clips

    def release(self) -> pa.Table | None:
        """The rows as they are, for the table; None where there are none."""
        rows = pa.concat_tables(self._rows.values()) if self._rows else None
        self._rows.clear()
        return rows

    @property
    def clips(self) -> dict[int, list[str]]:
        """Clip ids by unit."""
        clips: dict[int, list[str]] = defaultdict(list)
        for unit, clip_id in self._rows:
            clips[unit].append(clip_id)
        return dict(clips)

    @property
    def num_units(self) -> int:
        """Units that cannot be committed for want of these clips."""
        return len({unit for unit, _ in self._rows})

    @property
    def reason(self) -> str:
        """What the last of them said."""
        last = next(reversed(self._rows.values()), None)
        return "" if last is None else str(last["error_message"][0].as_py())

    def __len__(self) -> int:
        return len(self._rows)
