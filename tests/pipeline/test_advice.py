"""A run says what it waits for, on its progress line and in its events."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vidcls_batch import advisor
from vidcls_batch.config import Config
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress


class Told(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_run_says_what_it_waits_for(
    make_config: Callable[..., Config],
    write_manifest: Callable[..., Path],
    clips: list[Path],
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(advisor, "FIRST_AFTER_S", 0.0)
    config = make_config(write_manifest(clips))
    progress = Told()
    run_labeling(config, progress=progress)
    (line, *_) = [text for text in progress.lines if text.startswith("The run waits for")]
    events = [json.loads(text) for text in (Path(config.run.path) / "events.jsonl").read_text().splitlines()]
    (first, *_) = [event for event in events if event["event"] == "advice"]
    assert first["text"] == line
    assert first["limit"] in set(advisor.Limit)
