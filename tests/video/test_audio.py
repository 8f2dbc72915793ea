import numpy as np
import pytest

from tests.video.clips import audio_only
from tests.video.odd_clips import clip
from vidcls_batch.errors import ClipError, Status
from vidcls_batch.types import AudioState, DecodeLimits
from vidcls_batch.video.audio import AudioClip, decode_audio


def sound(source: bytes, **range_s: float) -> AudioClip:
    return decode_audio(source, sample_rate=16000, limits=DecodeLimits(), **range_s)


def loudest_hz(samples: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_sound_comes_mono_at_the_members_rate(rate):
    heard = decode_audio(clip("h264_audio"), sample_rate=rate, limits=DecodeLimits())
    assert heard.state is AudioState.PRESENT
    assert heard.samples.dtype == np.float32
    assert len(heard.samples) == pytest.approx(3.0 * rate, rel=0.05)
    assert loudest_hz(heard.samples, rate) == pytest.approx(440, abs=2)


def test_a_range_is_the_same_samples_as_that_part_of_the_whole():
    whole, part = sound(clip("h264_audio")), sound(clip("h264_audio"), start_s=1.0, end_s=2.0)
    assert len(part.samples) == 16000
    assert np.allclose(part.samples, whole.samples[16000:32000], atol=1e-6)


def test_a_range_that_runs_past_the_end_is_filled_with_zeros():
    part = sound(clip("h264_audio"), start_s=2.5, end_s=4.5)
    assert len(part.samples) == 32000
    assert np.abs(part.samples[:4000]).max() > 0.1
    assert not part.samples[16000:].any()
    assert part.state is AudioState.PRESENT


def test_a_video_without_sound_is_missing_not_silent():
    absent = sound(clip("h264"), start_s=0.0, end_s=1.0)
    assert (absent.state, len(absent.samples)) == (AudioState.MISSING, 16000)


def test_a_silent_track_is_silent_not_missing(monkeypatch):
    monkeypatch.setattr("tests.video.clips.LOUDNESS", 0.0)
    assert sound(audio_only()).state is AudioState.SILENT


def test_a_file_that_is_no_media_is_a_clip_error():
    with pytest.raises(ClipError) as caught:
        sound(b"nothing" * 1000)
    assert caught.value.status is Status.DECODE_ERROR
