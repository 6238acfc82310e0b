"""Tracks of committed sources become persons, and stay what people made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.engine import Engine
from streamgate.errors import ResultsError, SinkError, UsageError
from streamgate.networks import Networks
from streamgate.people.folder import correcting, list_people
from streamgate.people.ledger import DECISIONS_NAME, GROUPS_NAME, Ledger, track_of
from streamgate.people.persons import find_people
from streamgate.store.identity import load_identity
from support.command import lines
from support.people_folder import THRESHOLD, Out, person, template

ANN, BOB, EVE = 0, 1, 2


def who(out: Path) -> dict[str, str]:
    """`source/track` -> person, from faces.jsonl."""
    return {f"{one['source_id'][0]}/{one['track_id']}": one["person_id"] for one in lines(out / "faces.jsonl")}


def test_tracks_of_one_person_are_one_across_sources(out: Out) -> None:
    out.run(
        {
            "b": {1: (0, 1, person(BOB)), 2: (2, 3, person(ANN, 20))},
            "a": {1: (0, 1, person(ANN)), 2: (5, 6, person(ANN, 10))},
        }
    )
    assert who(out.path) == {"a/1": "p0001", "a/2": "p0001", "b/1": "p0002", "b/2": "p0001"}
    first, second = lines(out.path / "persons.jsonl")
    assert (first["person_id"], first["tracks"], first["sources"], first["faces"]) == ("p0001", 3, 2, 3)
    assert first["seconds"] == 3.0 and first["image"] == "a-0a1b2c3d/track_0001/1.png"
    assert [(one["source_id"], one["track_id"]) for one in second["members"]] == [("b-0a1b2c3d", 1)]
    assert json.loads((out.path / "summary.json").read_text())["totals"]["persons"] == 2
    ranks = {one["id"]: one["person_rank"] for one in lines(out.path / "faces.jsonl") if one["person_id"] == "p0001"}
    # The best face of a person is the first, wherever it was seen.
    assert list(ranks.values()) == [1, 2, 3]


def test_faces_seen_together_and_faces_that_tell_nothing_stay_apart(out: Out) -> None:
    poor = template(person(ANN).vector, weight=0.1)
    mixed = template(person(ANN).vector, agreement=0.5)
    like = person(ANN, 25)
    out.run({"a": {1: (0, 2, person(ANN)), 2: (1, 3, like), 3: (4, 5, poor), 4: (6, 7, mixed), 5: (8, 9, None)}})
    assert len(set(who(out.path).values())) == 5


def test_without_identity_nobody_has_a_name_and_nothing_biometric_is_written(out: Out) -> None:
    out.run({"a": {1: (0, 1, person(ANN))}}, store="none")
    assert who(out.path) == {"a/1": None}
    assert not (out.path / "persons.jsonl").exists() and not (out.path / ".streamgate" / "identity").exists()
    with pytest.raises(UsageError, match=r"identity\.store"):
        list_people(out.path)
    out.run({"a": {1: (0, 1, person(ANN))}}, threshold=None)
    assert who(out.path) == {"a/1": None} and not (out.path / ".streamgate" / "identity").exists()


@pytest.mark.parametrize(("store", "left"), [("session", False), ("disk", True)])
def test_embeddings_stay_only_where_that_was_asked_for(out: Out, store: str, left: bool) -> None:
    out.run({"a": {1: (0, 1, person(ANN)), 2: (3, 4, person(BOB))}}, store=store)
    assert bool(load_identity(out.path, "a-0a1b2c3d")[0]) is left
    raw = person(ANN).vector.tobytes()
    for path in out.path.rglob("*"):
        if path.is_file() and "identity" not in path.parts:
            assert raw not in path.read_bytes()
    # Whoever keeps no face is nobody's, and nothing is kept of them.
    assert who(out.path) == {"a/1": "p0001", "a/2": "p0002"}


def sources() -> dict:
    return {
        "a": {1: (0, 1, person(ANN)), 2: (2, 3, person(BOB))},
        "b": {1: (0, 1, person(EVE)), 2: (2, 3, person(BOB, 15))},
        "c": {1: (0, 1, person(EVE, 15)), 2: (2, 3, person(ANN, 15))},
    }


def people_of(out: Path, names: str, *, settle: bool) -> dict[str, str | None]:
    found = find_people(out, [f"{name}-0a1b2c3d" for name in names], THRESHOLD, settle=settle)
    return {f"{track[0][0]}/{track[1]}": found.person_of(track) for track in found.spans}


def test_ids_never_change_when_sources_come_later(out: Out) -> None:
    out.run(sources())
    (out.path / ".streamgate" / GROUPS_NAME).unlink()
    before = people_of(out.path, "bc", settle=True)
    after = people_of(out.path, "abc", settle=True)
    assert before == {key: after[key] for key in before}
    assert before["b/1"] == before["c/1"] == "p0001"
    assert after["a/1"] == after["c/2"] and after["a/2"] == after["b/2"]


def test_an_interrupted_run_that_goes_on_comes_to_what_an_undisturbed_one_comes_to(out: Out) -> None:
    out.run(sources())
    whole = people_of(out.path, "abc", settle=True)
    (out.path / ".streamgate" / GROUPS_NAME).unlink()
    assert people_of(out.path, "c", settle=False) == {"c/1": "p0001", "c/2": "p0002"}
    assert people_of(out.path, "abc", settle=True) == whole


def test_decisions_by_hand_are_followed_and_outlive_derivations(out: Out) -> None:
    out.run(sources())
    assert who(out.path)["b/1"] == who(out.path)["c/1"] == "p0003"
    with correcting(out.path) as people:
        people.name("p0003", "Eve")
        people.merge("p0001", ["p0003"])
        assert people.split("p0002", [track_of("b-0a1b2c3d/2")]) == "p0004"
    decided = {"a/1": "p0001", "a/2": "p0002", "b/1": "p0001", "b/2": "p0004", "c/1": "p0001", "c/2": "p0001"}
    assert who(out.path) == decided
    assert people_of(out.path, "abc", settle=True) == decided
    first = list_people(out.path)[0]
    assert first == lines(out.path / "persons.jsonl")[0]
    assert (first["name"], first["merged"]) == ("Eve", ["p0003"])
    assert json.loads((out.path / "summary.json").read_text())["totals"]["persons"] == 3
    # An id that was given up is never used again.
    with pytest.raises(UsageError, match="merged into p0001"), correcting(out.path) as people:
        people.name("p0003", "Ann")


def test_new_tracks_join_persons_that_were_merged_by_hand_by_either_look(out: Out) -> None:
    out.run(sources())
    (out.path / ".streamgate" / GROUPS_NAME).unlink()
    people_of(out.path, "a", settle=True)
    Ledger.read(out.path).merge("p0001", ["p0002"])
    found = people_of(out.path, "abc", settle=True)
    # Bob of b was not seen together with Ann or Bob of a.
    assert found["b/2"] == found["c/2"] == "p0001" and found["b/1"] == found["c/1"] == "p0003"


def test_what_was_split_by_hand_is_not_merged_again(out: Out) -> None:
    out.run(sources())
    with correcting(out.path) as people:
        new = people.split("p0001", [track_of("c-0a1b2c3d/track_0002/1.png")])
    for _ in range(2):
        assert people_of(out.path, "abc", settle=True)["c/2"] == new


def test_decisions_about_an_unfinished_run_settle_what_was_seen(out: Out) -> None:
    out.run(sources())
    house = out.path / ".streamgate"
    (house / GROUPS_NAME).unlink()
    seen = people_of(out.path, "c", settle=False)
    Ledger.read(out.path).name("p0002", "Ann")
    after = people_of(out.path, "abc", settle=True)
    assert {key: after[key] for key in seen} == seen and after["a/1"] == "p0002"


def test_overwriting_forgets_persons_with_the_results(out: Out) -> None:
    out.run(sources())
    with correcting(out.path) as people:
        people.merge("p0001", ["p0002"])
    out.run({"a": {1: (0, 1, person(ANN))}})
    assert who(out.path) == {"a/1": "p0001"}
    assert not (out.path / ".streamgate" / DECISIONS_NAME).exists()
    assert load_identity(out.path, "b-0a1b2c3d")[0] == {}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda people: people.merge("p0001", ["p0009"]), "no person 'p0009'"),
        (lambda people: people.merge("p0001", ["p0001"]), "two different persons"),
        (lambda people: people.split("p0001", [("b-0a1b2c3d", 1)]), "not a track of p0001"),
        (lambda people: people.split("p0001", [("a-0a1b2c3d", 1), ("c-0a1b2c3d", 2)]), "requires some, but not all"),
        (lambda people: people.split("p0001", [track_of("a")]), "is not a track"),
        (lambda people: people.name("Ann", "Ann"), "no person 'Ann'"),
        (lambda people: people.name("p0001", "A\nnn"), "printable"),
    ],
)
def test_wrong_decisions_change_nothing_and_say_why(out: Out, act, words: str) -> None:
    out.run(sources())
    before = {path: path.read_bytes() for path in out.path.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(UsageError, match=words), correcting(out.path) as people:
        act(people)
    assert before == {p: p.read_bytes() for p in out.path.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_folder_that_is_none_of_ours_or_in_use_is_refused(out: Out, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such folder"):
        list_people(tmp_path / "nowhere")
    out.run(sources())
    with correcting(out.path), pytest.raises(SinkError, match="in use"), correcting(out.path):
        pass


def test_damaged_files_are_said_by_name_and_a_torn_decision_is_none(out: Out) -> None:
    out.run(sources())
    house = out.path / ".streamgate"
    with correcting(out.path) as people:
        people.name("p0001", "Ann")
    decisions = house / DECISIONS_NAME
    whole = decisions.read_bytes()
    decisions.write_bytes(whole + b'{"schema":1,"op":"me')
    assert list_people(out.path)[0]["name"] == "Ann"
    for bad in (b'{"schema":9,"op":"name"}\n', b'{"schema":1,"op":"marry"}\n', b'{"schema":1,"op":"name"}\n', b"[]\n"):
        decisions.write_bytes(whole + bad)
        with pytest.raises(ResultsError, match=DECISIONS_NAME):
            list_people(out.path)
    decisions.write_bytes(whole)
    groups = (house / GROUPS_NAME).read_bytes()
    for bad in (groups[:40], b"[]", groups.replace(b"p0001", b"../..")):
        (house / GROUPS_NAME).write_bytes(bad)
        with pytest.raises(ResultsError, match=GROUPS_NAME):
            list_people(out.path)
    file = house / "identity" / "a-0a1b2c3d.npy"
    for bad in (file.read_bytes()[:50], b"", b"\x93NUMPY", np.zeros(3).tobytes()):
        file.write_bytes(bad)
        with pytest.raises(ResultsError, match=r"a-0a1b2c3d\.npy"):
            load_identity(out.path, "a-0a1b2c3d")


def test_tracks_are_named_as_people_see_them() -> None:
    assert track_of("clip-1/3") == track_of("clip-1/track_0003") == track_of("clip-1/track_0003/2.png") == ("clip-1", 3)


def test_persons_need_no_inference_library() -> None:
    code = "import sys, streamgate.people.folder; assert not {'onnxruntime', 'cv2', 'av', 'torch'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def faces_of(out: Path) -> list[tuple[str, int, str, int]]:
    return [
        (f"{one['source_id'][0]}/{one['track_id']}", one["rank"], one["person_id"], one["person_rank"])
        for one in lines(out / "faces.jsonl")
    ]


def test_the_best_faces_of_a_person_come_from_all_sources_and_look_different(out: Out) -> None:
    out.keep(per="person", top_k=2)
    shots = {
        "a": {1: (0, 1, person(ANN), [(95, 0x0), (94, 0xFFFF, person(ANN, 40).vector)])},
        "b": {
            1: (0, 1, person(ANN, 10), [(96, 0x1), (50, 0xFFFFFFFF, person(ANN, -40).vector)]),
            2: (2, 3, person(BOB), [(20, 0x0)]),
        },
    }
    out.run(shots)
    # b's best looks like a's, which is worse.
    assert faces_of(out.path) == [("a/1", 2, "p0001", 2), ("b/1", 1, "p0001", 1), ("b/2", 1, "p0002", 1)]
    assert (out.path / "a-0a1b2c3d" / "track_0001" / "1.png").is_file()
    first, _ = lines(out.path / "persons.jsonl")
    assert (first["faces"], [one["faces"] for one in first["members"]]) == (2, [1, 1])
    with correcting(out.path) as people:
        people.split("p0001", [("b-0a1b2c3d", 1)])
    assert faces_of(out.path) == [
        ("a/1", 1, "p0001", 1), ("a/1", 2, "p0001", 2),
        ("b/1", 1, "p0003", 1), ("b/1", 2, "p0003", 2), ("b/2", 1, "p0002", 1),
    ]  # fmt: skip


def test_faces_that_look_the_same_by_hash_alone_are_told_apart_by_embedding(out: Out) -> None:
    out.keep(per="person", top_k=2)
    shots = {
        "a": {1: (0, 1, person(ANN), [(95, 0x0)])},
        "b": {1: (0, 1, person(ANN, 10), [(94, 0xFF, person(ANN, 40).vector)])},
    }
    out.run(shots)
    assert len(faces_of(out.path)) == 2
    shots["b"][1] = (0, 1, person(ANN, 10), [(94, 0xFF, person(ANN, 5).vector)])
    out.run(shots)
    assert faces_of(out.path) == [("a/1", 1, "p0001", 1)]
    # A run that keeps faces per track writes no embeddings of single faces.
    out.keep(per="track", top_k=2).run(shots)
    assert load_identity(out.path, "b-0a1b2c3d")[1] == {} and len(faces_of(out.path)) == 2


def test_the_best_of_each_person_need_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"identity\.store"):
        load_config("studio", ["keep.per=person", "identity.store=none"])
    monkeypatch.setattr(Networks, "identity_threshold", None)
    with pytest.raises(UsageError, match=r"identity\.threshold"):
        Engine(load_config(settings=["keep.per=person"]), models="embedded", device="cpu")
    with Engine(load_config(), models="embedded", device="cpu") as engine:
        assert any("identity.threshold" in note for note in engine.notes) and not engine.run_info().identity.wanted
