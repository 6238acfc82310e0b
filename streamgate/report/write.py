"""Writes OUT/report.html and, if there are more than 2,000 faces, a page for each person (or source) in OUT/report/.

Small groups share a page. Everything is derived from the committed results in OUT, so identical results give identical
bytes, and neither networks nor footage are needed. Each file is written atomically, and report.html is written last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streamgate.errors import SinkError
from streamgate.report.content import Content, FaceEntry, Group
from streamgate.report.page import page_text
from streamgate.store import files
from streamgate.store.jsonlines import Record
from streamgate.store.layout import PAGES, REPORT
from streamgate.store.manifest import Manifest

MAX_FACES = 2000
"""Maximum number of faces on one page."""
BEST = 12
"""Number of faces per group on the first page, if there are too many faces for a single page."""
MAX_TRACKS = 700
"""Maximum number of tracks on a page that shows tracks without kept faces, or that several groups share."""


Pages = dict[str, Callable[[], str]]
"""The functions that create the pages, by file name relative to OUT, with `/` as the separator."""


def write_report(out: Path, manifest: Manifest, names: Mapping[str, str] | None = None) -> list[str]:
    """Write the report of the committed results in `out`; returns one line for each file that could not be read.

    All pages are listed in `manifest` before the first page is written. `names` are the names that users gave to
    persons. The caller holds the folder's lock. Raises ResultsError if `out` has no results, and SinkError if the
    report cannot be written.
    """
    content = Content(out, names)
    pages = plan(content)
    ours = set(pages)
    before = {name for name in manifest.owned if is_page(name)}
    for name in sorted(ours - before):
        if os.path.lexists(out / name):
            raise SinkError(
                f"{out / name} already exists and was not written by streamgate; move it out of the output folder"
            )
    with files.sink_errors(out):
        manifest.owned = tuple(sorted({*manifest.owned, *ours}))
        manifest.write()
    for name, make in reversed(pages.items()):
        path = out / name
        with files.sink_errors(path):
            if path.parent != out:
                files.make_folder(out, PAGES)
            files.write_text(out, name, make())
    if stale := before - ours:
        with files.sink_errors(out):
            files.remove_listed(out, sorted(stale))
            manifest.owned = tuple(name for name in manifest.owned if name not in stale)
            manifest.write()
    return content.damages.words


def is_page(name: str) -> bool:
    """Whether a file in OUT with this name belongs to the report."""
    return name == REPORT or name.startswith(f"{PAGES}/")


def plan(content: Content, most: int = MAX_FACES) -> Pages:
    """The pages of a report; the first is report.html."""
    if content.face_count <= most:
        return {REPORT: lambda: _page(content, content.groups, "")}
    further: Pages = {}
    where: dict[str, str] = {}
    for number, groups in _together(content.groups, most):
        further |= _pages_of(content, groups[0], number, most) if len(groups) == 1 else _shared(content, groups, number)
        anchor = "#group-{}" if len(groups) > 1 else ""
        where.update((group.key, _group_name(number, 0) + anchor.format(quote(group.key))) for group in groups)
    chunks = list(_chunks([group for group in content.groups if group.faces], max(1, most // BEST)))
    return {_index_name(index): _index(content, chunks, index, where) for index in range(len(chunks))} | further


def title_of(content: Content) -> str:
    """A title that describes the result of the run in one line."""
    faces = _count(content.face_count, "face")
    if content.persons is not None:
        return f"{faces} of {_count(content.persons, 'person')}"
    return f"{faces} from {_count(len(content.folder.summary['sources']), 'source')}"


def _page(content: Content, groups: Sequence[Group], base: str) -> str:
    title = title_of(content)
    shown = [_group(content, group) for group in groups]
    # The summary is created last, because it reports damage that was found while the groups were read.
    return _text(content, title, {
        "title": title, "base": base, "groups": shown, "summary": content.summary(),
    })  # fmt: skip


def _text(content: Content, title: str, data: Record) -> str:
    served = {"served": True} if content.spaced is not None else {}
    return page_text(f"{title} · streamgate", {**data, **served}, content.folder.measures)


def _together(groups: Sequence[Group], most: int) -> Iterator[tuple[int, list[Group]]]:
    """Yield the groups of each page, with the number of the first group; small groups share a page."""
    shared: list[Group] = []
    began = faces = tracks = 0
    for number, group in enumerate(groups, 1):
        alone = len(group.faces) > BEST or group.kind == "nothing"
        faces, tracks = faces + len(group.faces), tracks + len(group.tracks)
        if shared and (alone or faces > most or tracks > MAX_TRACKS):
            yield began, shared
            shared = []
        if alone:
            yield number, [group]
            continue
        if not shared:
            began, faces, tracks = number, len(group.faces), len(group.tracks)
        shared.append(group)
    if shared:
        yield began, shared


def _index(content: Content, chunks: list[list[Group]], index: int, where: Mapping[str, str]) -> Callable[[], str]:
    def make() -> str:
        title = title_of(content)
        base = "" if index == 0 else "../"
        shown = []
        for group in chunks[index]:
            best = group.faces[:BEST]
            tracks = sorted({face.track for face in best})
            page = f"{base}{where[group.key]}"
            shown.append({**_group(content, group, best, tracks, misses=False), "page": page})
        if index == 0 and (nothing := next((one for one in content.groups if one.kind == "nothing"), None)):
            shown.append({**_group(content, nothing, [], []), "page": where[nothing.key]})
        pages = [
            {"name": f"Page {one + 1}", "href": None if one == index else f"{base}{_index_name(one)}"}
            for one in range(len(chunks))
        ]
        data: Record = {"title": title, "base": base, "groups": shown, "pages": pages}
        if index == 0:
            data["summary"] = content.summary()
        else:
            data["up"] = f"../{REPORT}"
        return _text(content, title, data)

    return make


def _pages_of(content: Content, group: Group, number: int, most: int) -> Pages:
    """The pages of one group: all of its faces, with their tracks."""
    if group.faces:
        parts: list[tuple[list[FaceEntry], list[tuple[str, int]]]] = []
        for faces in _chunks(group.faces, most):
            parts.append((faces, sorted({face.track for face in faces})))
        with_faces = {key for _, tracks in parts for key in tracks}
        parts[-1][1].extend(key for key in group.tracks if key not in with_faces)
    else:
        parts = [([], tracks) for tracks in _chunks(group.tracks, MAX_TRACKS)]
    pages = [_group_name(number, index) for index in range(len(parts))]

    def make(index: int) -> Callable[[], str]:
        def text() -> str:
            faces, tracks = parts[index]
            title = group.name or "Nothing kept"
            links = [
                {"name": f"Page {one + 1}", "href": None if one == index else name.rpartition("/")[2]}
                for one, name in enumerate(pages)
            ]
            return _text(content, title, {
                "title": title_of(content), "base": "../", "up": f"../{REPORT}", "pages": links,
                "groups": [_group(content, group, faces, tracks)],
            })  # fmt: skip

        return text

    return {name: make(index) for index, name in enumerate(pages)}


def _shared(content: Content, groups: Sequence[Group], number: int) -> Pages:
    """One page that shows several small groups completely."""

    def text() -> str:
        title = f"{groups[0].name} to {groups[-1].name}"
        return _text(content, title, {
            "title": title_of(content), "base": "../", "up": f"../{REPORT}",
            "groups": [_group(content, group) for group in groups],
        })  # fmt: skip

    return {_group_name(number, 0): text}


def _group(
    content: Content,
    group: Group,
    faces: Sequence[FaceEntry] | None = None,
    tracks: Sequence[tuple[str, int]] | None = None,
    *,
    misses: bool = True,
) -> Record:
    shown = group.faces if faces is None else faces
    picks: dict[tuple[str, int], list[FaceEntry]] = {}
    for face in group.faces:
        picks.setdefault(face.track, []).append(face)
    found: list[dict[str, Any]] = content.tracks(group.tracks if tracks is None else tracks, picks)
    return {
        "key": group.key,
        "kind": group.kind,
        "name": group.name,
        "faces": [content.face(face) for face in shown],
        "tracks": found if misses else [{**track, "misses": []} for track in found],
        "face_count": len(group.faces),
        "track_count": sum(source_id not in content.picture_sources for source_id, _ in group.tracks),
        "picture_count": sum(source_id in content.picture_sources for source_id, _ in group.tracks),
        "source_count": len({source_id for source_id, _ in group.tracks}),
        "best": group.faces[0].quality if group.faces else None,
    }


def _index_name(index: int) -> str:
    return REPORT if index == 0 else f"{PAGES}/page-{index + 1}.html"


def _group_name(number: int, index: int) -> str:
    return f"{PAGES}/{number:05d}{'' if index == 0 else f'-{index + 1}'}.html"


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}".replace(",", "\u202f")
