"""The zoo: odd clips that must decode right, and broken ones that must fail as a row. Generated, never stored."""

from collections.abc import Callable
from functools import cache

from tests.video.clips import FPS, Recipe, audio_only, damaged, encode, remux

_X264 = {"preset": "veryfast", "crf": "23"}
_OPEN_GOP = {**_X264, "x264-params": "open-gop=1:keyint=30:min-keyint=10:bframes=3:b-pyramid=normal"}
_X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"}
_VP9 = {"deadline": "realtime", "cpu-used": "8"}
_AV1 = {"preset": "12", "svtav1-params": "lp=1"}


def _x265(more: str) -> dict[str, str]:
    return {**_X265, "x265-params": f"{_X265['x265-params']}:{more}"}


RECIPES: dict[str, Recipe] = {
    "h264": Recipe(options=_X264),
    "h264_one_gop": Recipe(options=_X264, gop=1000),
    "h264_all_intra": Recipe(options=_X264, gop=1),
    "h264_many_b": Recipe(options={**_X264, "x264-params": "bframes=16:b-adapt=0:b-pyramid=strict"}),
    "h264_open_gop": Recipe(options=_OPEN_GOP),
    "h264_intra_refresh": Recipe(options={**_X264, "x264-params": "intra-refresh=1:keyint=30"}),
    "h264_interlaced": Recipe(options={**_X264, "x264-params": "interlaced=1"}),
    "h264_444_odd_size": Recipe(options=_X264, pix_fmt="yuv444p", width=341, height=257),
    "h264_10bit": Recipe(options=_X264, pix_fmt="yuv420p10le"),
    "h264_full_range": Recipe(options=_X264, pix_fmt="yuvj420p"),
    "h264_bt709": Recipe(options=_X264, colour={"colorspace": 1, "color_range": 1}),
    "h264_sar": Recipe(options={**_X264, "x264-params": "sar=4/3"}),
    "h264_rotated_90": Recipe(options=_X264, rotation=90),
    "h264_rotated_180": Recipe(options=_X264, rotation=180),
    "h264_rotated_270": Recipe(options=_X264, rotation=-90),
    "h264_vfr": Recipe(options=_X264, pts=lambda n: n if n < 30 else 30 + 4 * (n - 30)),
    "h264_late_start": Recipe(options=_X264, first_pts=100 * FPS),
    "h264_one_frame": Recipe(options=_X264, count=1),
    "h264_two_frames": Recipe(options=_X264, count=2),
    "h264_audio": Recipe(options=_X264, audio=True),
    "h264_two_videos": Recipe(options=_X264, num_streams=2),
    "h264_fragmented": Recipe(
        options=_X264, container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "h264_faststart": Recipe(options=_X264, container_options={"movflags": "faststart"}),
    "h264_mkv": Recipe(options=_X264, container="matroska"),
    "h264_mkv_live": Recipe(options=_OPEN_GOP, container="matroska", container_options={"live": "1"}),
    "h264_ts": Recipe(options=_OPEN_GOP, container="mpegts"),
    "h264_flv": Recipe(options=_X264, container="flv"),
    "h264_avi": Recipe(options={**_X264, "bf": "0"}, container="avi"),
    "h264_avi_b": Recipe(options=_X264, container="avi"),
    "h264_raw": Recipe(options=_X264, container="h264"),
    "hevc": Recipe(codec="libx265", options=_X265),
    "hevc_open_gop": Recipe(codec="libx265", options=_x265("keyint=30:open-gop=1:bframes=4:b-pyramid=1")),
    "hevc_open_gop_ts": Recipe(codec="libx265", options=_x265("keyint=30:open-gop=1:bframes=4"), container="mpegts"),
    "hevc_temporal_layers": Recipe(codec="libx265", options=_x265("keyint=30:temporal-layers=3:bframes=4")),
    "hevc_10bit": Recipe(codec="libx265", options=_X265, pix_fmt="yuv420p10le"),
    "hevc_hdr": Recipe(
        codec="libx265",
        options=_x265("colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"),
        pix_fmt="yuv420p10le",
    ),
    "vp8": Recipe(
        codec="libvpx", options={**_VP9, "auto-alt-ref": "1", "lag-in-frames": "16"}, container="webm", bit_rate=400_000
    ),
    "vp9": Recipe(codec="libvpx-vp9", options=_VP9, container="webm", bit_rate=400_000),
    "vp9_alt_ref": Recipe(
        codec="libvpx-vp9",
        options={"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
        container="webm",
        bit_rate=400_000,
    ),
    "vp9_odd_size": Recipe(codec="libvpx-vp9", options=_VP9, container="webm", width=341, height=257, count=40),
    "av1_mkv": Recipe(codec="libsvtav1", options=_AV1, container="matroska"),
    "av1_mp4": Recipe(codec="libsvtav1", options=_AV1),
    "mpeg4_avi_b": Recipe(codec="mpeg4", options={"bf": "2"}, gop=12, container="avi", bit_rate=800_000),
    "mpeg4_mp4": Recipe(codec="mpeg4", options={"bf": "2"}, gop=12, bit_rate=800_000),
    "mpeg2_ps": Recipe(codec="mpeg2video", options={"bf": "2"}, container="mpeg", bit_rate=1_500_000),
    "mpeg2_ts_interlaced": Recipe(
        codec="mpeg2video", options={"flags": "+ildct+ilme"}, container="mpegts", bit_rate=1_500_000
    ),
    "wmv": Recipe(codec="wmv2", container="asf", bit_rate=800_000),
    "mjpeg_mov": Recipe(codec="mjpeg", container="mov", pix_fmt="yuvj422p", bit_rate=4_000_000),
    "prores": Recipe(codec="prores_ks", container="mov", pix_fmt="yuv422p10le", count=30),
    "ffv1": Recipe(codec="ffv1", container="matroska", pix_fmt="yuv420p", count=30),
    "gif": Recipe(codec="gif", container="gif", pix_fmt="rgb8", count=40),
}


def _edit_list() -> bytes:
    # The first 20 frames are decoded but lie before the presentation's start: an edit list says so.
    ticks = 20 * 512  # the mov muxer's 1/15360 s
    return remux(clip("h264"), container="mp4", shift=-ticks, options={"avoid_negative_ts": "disabled"})


DERIVED: dict[str, Callable[[], bytes]] = {
    "h264_edit_list": _edit_list,
    "h264_dropped_packets": lambda: remux(clip("h264_open_gop"), container="mp4", keep=lambda n: n % 31 != 17),
    "h264_no_first_key": lambda: remux(clip("h264"), container="mpegts", keep=lambda n: n >= 5),
    "h264_damaged": lambda: damaged(clip("h264_faststart"), start=0.3, bursts=12),
    "h264_damaged_ts": lambda: damaged(clip("h264_ts"), start=0.2, bursts=10),
    "hevc_damaged": lambda: damaged(clip("hevc_open_gop"), start=0.4, stop=0.9, bursts=5),
    "vp9_damaged": lambda: damaged(clip("vp9"), start=0.3, bursts=5),
    "h264_truncated_faststart": lambda: clip("h264_faststart")[: len(clip("h264_faststart")) // 2],
    "h264_truncated_ts": lambda: clip("h264_ts")[: len(clip("h264_ts")) // 2],
    "h264_truncated_mkv": lambda: clip("h264_mkv")[: len(clip("h264_mkv")) // 2],
}
READABLE: tuple[str, ...] = (*RECIPES, *DERIVED)
# What a clean decode shows: every number in order. Damaged and cut files show what is left of it.
CLEAN: tuple[str, ...] = (*RECIPES, "h264_edit_list")

UNREADABLE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "garbage": lambda: damaged(bytes(200_000), start=0.0, bursts=3000),
    "text": lambda: b"this is not a video\n" * 100,
    "truncated_without_moov": lambda: clip("h264")[: len(clip("h264")) // 2],
    "playlist": lambda: b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    "concat": lambda: b"ffconcat version 1.0\nfile /etc/hostname\n",
    "header_only": lambda: clip("h264_faststart")[:600],
}
WITHOUT_VIDEO: dict[str, Callable[[], bytes]] = {
    "audio_mp4": audio_only,
    "audio_adts": lambda: audio_only("adts"),
}


@cache
def clip(name: str) -> bytes:
    """The bytes of a clip by its name, made on first use."""
    if name in RECIPES:
        return encode(RECIPES[name])
    return {**DERIVED, **UNREADABLE, **WITHOUT_VIDEO}[name]()
