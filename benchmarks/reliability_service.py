"""The section on `serve` in docs/reliability.md: the service in a separate process, attacked while it runs."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from common import say
from reliability_rows import Row, run, sections, told

from streamgate.service.spool import Spool
from streamgate.sinks.redisstream import pack
from support.client import Client
from support.hostile import high_water
from support.hostile_cameras import HOSTILE_CAMERAS, HostileCamera, hostile_camera
from support.hostile_peers import PEERS, Peers, crowd
from support.hostile_settings import BAD_FILES, remove
from support.hostile_spool import FOREIGN, HEAD, INTRUDERS
from support.lying_redis import lying_redis
from support.media import plain_frames, write_clip
from support.redirecting import asks, listening, sends
from support.rtsp_server import CameraProcess, cameras
from support.serve_process import Serving, serving


def service_faults(folder: Path) -> str:
    """Every kind of attack, each on a separate service, one table per kind."""
    kinds: list[tuple[str, Callable[[Path], list[Row]]]] = [
        ("Reloading the streams file (SIGHUP)", _reloads),
        ("Contents of the spool at the start", _spools),
        ("Clients of the page, with a limit of 256 open files", _crowds),
        ("Tokens and forms", _guesses),
        ("Cameras that redirect", _redirects),
    ]
    tables = {}
    for title, attack in kinds:
        path = folder / attack.__name__.strip("_")
        path.mkdir()
        tables[title] = attack(path)
    return sections("The service under attack", "Seconds are the time until the service had handled it.", tables)


def _told(service: Serving, folder: Path) -> str:
    """The service's last line without its time and this script's folder."""
    return service.said().splitlines()[-1].partition(" ")[2].replace(f"{folder}/", "")


def _reloads(folder: Path) -> list[Row]:
    config, sound = folder / "streams.toml", '[streams.door]\nurl = "rtsp://127.0.0.1:1/x"\n'
    config.write_text(sound)
    rows = []
    with serving(folder, "--config", config, "--http", "off") as service:

        def reloaded(what: str, condition: Callable[[], bool]) -> None:
            began = time.monotonic()
            service.process.send_signal(signal.SIGHUP)
            service.until(condition, what)
            seconds = time.monotonic() - began
            rows.append(Row(what, _told(service, folder), seconds, high_water(service.process.pid)))
            say(f"{what}: {seconds:.1f} s")

        service.until(lambda: "watching" in service.said(), "its start")
        for number, bad in enumerate(BAD_FILES, 1):
            remove(config)
            bad.put(config)
            reloaded(bad.what, lambda number=number: service.said().count("not taken") == number)
        remove(config)
        config.write_text(sound.replace("door", "hall"))
        reloaded("a valid file after all of them", lambda: "1 new, 0 changed, 1 gone" in service.said())
    return rows


EVENTS = 15


def _spools(folder: Path) -> list[Row]:
    def flipped(path: int) -> Callable[[Path], object]:
        def flip(spool: Path) -> None:
            (segment,) = spool.glob("*.spool")
            data = bytearray(segment.read_bytes())
            data[path] ^= 4
            segment.write_bytes(data)

        return flip

    def foreign(content: bytes) -> Callable[[Path], object]:
        return lambda spool: (spool / "00000007.spool").write_bytes(content)

    sound: list[tuple[str, Callable[[Path], object]]] = [
        ("a flipped bit in the first event's marker", flipped(0)),
        ("a flipped bit in its length", flipped(7)),
        ("a flipped bit in its data", flipped(HEAD + 3)),
        *((f"a foreign file: {what}", foreign(content)) for what, content in FOREIGN.items()),
    ]
    rows = [_damaged(what, put, folder / f"damaged{number}") for number, (what, put) in enumerate(sound)]
    return rows + [_intruded(what, put, folder / f"in{number}") for number, (what, put) in enumerate(INTRUDERS.items())]


def _filled(folder: Path) -> Path:
    """A spool in which 15 events wait."""
    with Spool(folder / "spool", 1 << 20) as spool:
        spool.append([pack({"id": f"door/0/{n}/final/1/0", "kind": "final", "json": "{}"}) for n in range(EVENTS)])
    return folder / "spool"


def _damaged(what: str, put: Callable[[Path], object], folder: Path) -> Row:
    put(_filled(folder))
    config = folder / "streams.toml"
    began = time.monotonic()
    with lying_redis() as server:
        config.write_text(f'[service]\nredis = "{server.url()}"\nspool = "spool"\nhttp = "127.0.0.1:0"\n')
        with serving(folder, "--config", config) as service:
            service.until(lambda: "streamgate_spool_events 0.0" in service.get("/metrics"), "the spool to be empty")
            words = [line for line in service.said().splitlines() if "damaged" in line]
            mib = high_water(service.process.pid)
            service.end()
    kept = len(list((folder / "spool" / "damaged").iterdir()))
    text = words[-1].partition(" ")[2].replace(f"{folder}/", "") if words else "**nothing was logged**"
    say(f"spool, {what}: {server.taken} of {EVENTS}")
    return Row(what, f"{server.taken} of {EVENTS} events arrived, {kept} files set aside; {text}",
                  time.monotonic() - began, mib)  # fmt: skip


def _intruded(what: str, put: Callable[[Path], object], folder: Path) -> Row:
    put(_filled(folder))
    ran = run(["serve", "--rtsp", "rtsp://127.0.0.1:1/x", "--http", "off", "--redis", "redis://127.0.0.1:1/0",
               "--spool", folder / "spool"])  # fmt: skip
    say(f"spool, {what}: {ran.code}")
    return Row(what, f"exit code {ran.code}: {told(ran, folder)}", ran.seconds, ran.peak_mib)


FILES = 256
ASKED = 20


def _crowds(folder: Path) -> list[Row]:
    clip = write_clip(folder / "empty.mp4", plain_frames(50, (160, 120)), options={"g": "10"})
    with cameras() as start:
        camera = start(clip)
        return [_crowded(peers, camera, folder / f"crowd{number}") for number, peers in enumerate(PEERS)]


def _crowded(peers: Peers, camera: CameraProcess, folder: Path) -> Row:
    """Twenty seconds under a crowd, in which the camera goes away and comes back."""
    folder.mkdir()
    arguments = ("--rtsp", f"door={camera.url()}", "--out", "out", "--http", "127.0.0.1:0")
    with serving(folder, *arguments, descriptors=FILES) as service:
        service.until(lambda: (service.stream("door") or {}).get("state") == "running", "the camera")
        before = len(service.said().splitlines())
        began = time.monotonic()
        answered, slowest = 0, 0.0
        with crowd(int(service.address.rpartition(":")[2]), peers) as many:
            camera.kill()
            for number in range(ASKED):
                asked = time.monotonic()
                with suppress(OSError):
                    answered += "true" in service.get("/healthz")
                slowest = max(slowest, time.monotonic() - asked)
                if number == ASKED // 2:
                    camera.start()
                time.sleep(1.0)
            service.until(lambda: service.stream("door")["state"] == "running", "the camera's return")
            figures = service.get("/metrics")
        lines = len(service.said().splitlines()) - before
        mib = high_water(service.process.pid)
        service.end()
    ended = {
        why: float(value) for why, value in re.findall(r'streamgate_http_closed_total\{why="(\w+)"\} (\S+)', figures)
    }
    words = f"/healthz answered {answered} of {ASKED} times, after at most {slowest:.2f} s; the camera came back; " \
            f"{lines} lines in the log; of {many.opened} connections were ended: " \
            + ", ".join(f"{count:.0f} {why}" for why, count in ended.items())  # fmt: skip
    say(f"{peers.what}: {words}")
    return Row(peers.what, words, time.monotonic() - began, mib)


def _guesses(folder: Path) -> list[Row]:
    token = "correct horse battery staple"
    config = folder / "streams.toml"
    config.write_text('[service]\nhttp = "127.0.0.1:0"\nout = "out"\n')
    rows = []
    with serving(folder, "--config", config, STREAMGATE_TOKEN=token) as service:
        client = Client(service.address, token)

        def row(what: str, ask: Callable[[], str]) -> None:
            began = time.monotonic()
            words = ask()
            rows.append(Row(what, words, time.monotonic() - began, high_water(service.process.pid)))
            say(f"{what}: {words}")

        def guessed() -> str:
            wrong = [client.get("/metrics", {"Authorization": f"Bearer {n}"}).status for n in range(7)]
            return f"{wrong}; then the right token: {client.get('/metrics').status}"

        row("seven wrong tokens from the address of the right one", guessed)
        row("... and at the log-in", lambda: ", ".join([
            f"wrong: {client.post('/login', 'token=x').status}",
            f"right: {client.post('/login', f'token={quote(token)}').status}"]))  # fmt: skip
        for origin in ("http://[", "http://evil.example", "null"):
            row(f"a form with `Origin: {origin}`",
                lambda origin=origin: str(client.post("/login", "token=x", {"Origin": origin}).status))  # fmt: skip
        for count in (20, 1000):
            body = "&".join(["a=b"] * count)[:4000]
            row(f"a form of {count} fields", lambda body=body: str(client.post("/login", body).status))
        service.end()
    with serving(folder, "--config", config, STREAMGATE_TOKEN="abc") as service:
        service.until(lambda: "watching" in service.said(), "its start")
        words = next(line for line in service.said().splitlines() if "guessed" in line).partition(" ")[2]
        rows.append(Row("a token of three letters", words, 0.0, high_water(service.process.pid)))
        service.end()
    return rows


def _redirects(folder: Path) -> list[Row]:
    """A camera with a password in its address that redirects to a server that asks for a password."""
    rows = []
    for scheme, when in (("rtsp", "OPTIONS"), ("rtsp", "DESCRIBE"), ("http", "GET")):
        for after in (None, "basic", "digest"):
            path = folder / f"{when}-{after}"
            path.mkdir()
            began = time.monotonic()
            with (
                listening(asks("basic")) as other,
                listening(sends(lambda s=scheme, o=other: f"{s}://127.0.0.1:{o.port}/x", when, after)) as first,
                serving(path, "--rtsp", f"door={scheme}://ann:pw12345@127.0.0.1:{first.port}/s", "--http", "off")
                as service,
            ):  # fmt: skip
                service.until(lambda other=other: other.connections > 0, "the redirect")
                service.until(lambda: "next attempt" in service.said(), "the answer")
                leaked = other.holds("ann", "pw12345", "uthorization:")
                mib = high_water(service.process.pid)
                service.end()
            asked = f", once it has the {after} password" if after else ""
            words = "**the password was sent**" if leaked else f"{other.connections} connections there, no password"
            rows.append(Row(f"{scheme}, redirected at {when}{asked}", words, time.monotonic() - began, mib))
            say(f"{rows[-1].what}: {words}")
    return rows


def camera_faults(folder: Path) -> str:
    """Cameras with hostile pictures, each together with a normal one."""
    with cameras() as start:
        camera = hostile_camera(start, folder)
        rows = [_shown(attack, camera, folder / f"camera{number}") for number, attack in enumerate(HOSTILE_CAMERAS)]
    text = "`serve` watches each for ten seconds together with a normal camera of 320 x 240 px."
    return sections("Cameras with hostile pictures", text, {"": rows})


def _shown(attack: HostileCamera, camera: CameraProcess, folder: Path) -> Row:
    """Ten seconds with a hostile camera and a normal one."""
    folder.mkdir()
    hostile = f"door={attack.url(camera, folder)}"
    began = time.monotonic()
    arguments = ("--rtsp", hostile, "--rtsp", f"hall={camera.url()}", "--out", "out", "--http", "127.0.0.1:0")
    with serving(folder, *arguments) as service:
        service.until(lambda: (service.stream("hall") or {}).get("frames_in", 0) > 0, "the sound camera")
        time.sleep(10.0)
        door, hall = service.stream("door"), service.stream("hall")
        said = [line.partition(": ")[2] for line in service.said().splitlines() if " door: " in line and "next" in line]
        mib = high_water(service.process.pid)
        service.end()
    words = f"{door['frames_in']} pictures, {door['frames_in_error']} that could not be decoded; "
    words += f"{re.sub(r'(rtsp|file)://[^ :]*(:[0-9]+/[^ :]*)?: ', '', said[0])}; " if said else ""
    words += f"the other camera: {hall['frames_in']} pictures, {hall['frames_in_error']} that could not be decoded"
    say(f"{attack.what}: {words}")
    return Row(attack.what, words, time.monotonic() - began, mib)
