"""Files that point at other files or at addresses, each under an innocent name."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from support.hostile import Hostile
from support.hostile_videos import box, clip_bytes


def full(kind: bytes, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", flags), *parts)


def external_mp4(path: Path, target: str, kind: bytes = b"url ") -> None:
    """A QuickTime film whose samples lie in another file, named by its data reference."""
    content = bytearray(clip_bytes(".mp4"))
    start = content.find(b"dinf") - 4
    length = struct.unpack_from(">I", content, start)[0]
    if kind == b"alis":
        name = Path(target).name.encode()[:60]
        # An alias record of QuickTime: volume, folder and file name, and the path behind tag 2.
        record = bytearray(150)
        struct.pack_into(">H", record, 4, 150)
        record[50] = len(name)
        record[51 : 51 + len(name)] = name
        struct.pack_into(">hh", record, 130, -1, -1)
        text = target.encode() + (b"\0" if len(target) % 2 else b"")
        record += struct.pack(">hH", 2, len(target)) + text + struct.pack(">hH", -1, 0)
        entry = full(b"alis", 0, bytes(record))
    else:
        entry = full(kind, 0, target.encode() + b"\0")
    reference = box(b"dinf", full(b"dref", 0, struct.pack(">I", 1), entry))
    grown = len(reference) - length
    content[start : start + length] = reference
    for outer in (b"moov", b"trak", b"mdia", b"minf"):
        index = content.find(outer) - 4
        struct.pack_into(">I", content, index, struct.unpack_from(">I", content, index)[0] + grown)
    samples = content.find(b"mdat") + 4
    length = struct.unpack_from(">I", content, samples - 8)[0] - 8
    content[samples : samples + length] = bytes(length)  # here they are not
    path.write_bytes(content)


def text(path: Path, content: str) -> None:
    path.write_text(content)


def references(folder: Path, port: int) -> Sequence[Hostile]:
    """Inputs that point at `folder`/victim.mp4 or at http://127.0.0.1:`port`; none of them may be followed."""
    victim = folder / "victim.mp4"
    web = f"http://127.0.0.1:{port}"
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\n"
    playlist = "playlist|text|refers to other|not video|no video stream|damaged|not a picture"
    xml = '<?xml version="1.0" encoding="UTF-8"?>\n'
    mpd = (
        f'{xml}<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="1" width="320" height="240"><BaseURL>{0}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>\n"
    )
    made = [
        ("hls-file.mp4", "HLS playlist with a file:// entry", f"{head}file://{victim}\n#EXT-X-ENDLIST\n"),
        ("hls-path.ts", "HLS playlist with the path of a file", f"{head}{victim}\n#EXT-X-ENDLIST\n"),
        ("hls-http.mp4", "HLS playlist with an http:// entry", f"{head}{web}/hls.ts\n#EXT-X-ENDLIST\n"),
        ("hls-key.mp4", "HLS playlist with an http:// address of a key",
         f'{head.replace("#EXTINF", f"""#EXT-X-KEY:METHOD=AES-128,URI="{web}/key"{chr(10)}#EXTINF""")}'
         f"{web}/hls.ts\n#EXT-X-ENDLIST\n"),
        ("hls.m3u8", "HLS playlist named .m3u8", f"{head}{web}/hls.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "concat script that names a file", f"ffconcat version 1.0\nfile '{victim}'\n"),
        ("concat-http.mkv", "concat script that names an address", f"ffconcat version 1.0\nfile '{web}/concat.mp4'\n"),
        ("dash.mp4", "DASH manifest that names an address", mpd.format(f"{web}/dash.mp4")),
        ("dash-file.mp4", "DASH manifest that names a file", mpd.format(f"file://{victim}")),
        ("session.mp4", "SDP file that names an address",
         "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
         f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
        ("redirect.avi", "ASF redirector that names an address", f"[Reference]\nRef1={web}/asf.wmv\n"),
        ("picture.jpg", "SVG that names an address, with the suffix .jpg",
         f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{web}/svg.png"/></svg>'),
    ]  # fmt: skip
    found = [Hostile(name, what, partial(text, content=content), playlist) for name, what, content in made]
    for name, what, target, kind in (
        ("reference-file.mp4", "MP4 with its data in another file", f"file://{victim}", b"url "),
        ("reference-path.mov", "QuickTime file with its data in another file", str(victim), b"alis"),
        ("reference-http.mp4", "MP4 with its data at an address", f"{web}/dref.mp4", b"url "),
    ):
        make = partial(external_mp4, target=target, kind=kind)
        found.append(Hostile(name, what, make, "no frame", None))
    return found
