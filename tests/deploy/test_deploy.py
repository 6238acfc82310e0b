"""What lies in deploy/ is what the programs it is meant for accept."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY
from streamgate.service.settings import read_settings

DEPLOY = REPOSITORY / "deploy"


def test_the_systemd_unit_verifies(tmp_path: Path):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    # The command need not be installed here, so something executable stands in its place.
    unit = tmp_path / "streamgate.service"
    unit.write_text((DEPLOY / "streamgate.service").read_text().replace("/opt/streamgate/bin/streamgate", "/bin/true"))
    done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "streamgate.service" not in done.stderr, done.stderr


def test_the_example_configuration_is_one():
    settings = read_settings(config_file=DEPLOY / "streams.toml")
    assert [spec.name for spec in settings.streams] == ["entrance", "hall", "gate"]
    assert [spec.main_url is not None for spec in settings.streams] == [False, False, True]
    assert settings.streams[1].config.live.transport == "udp"
    assert settings.streams[0].config.live.transport == "tcp"


def test_the_compose_file_is_valid(monkeypatch: pytest.MonkeyPatch):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    monkeypatch.setenv("STREAMGATE_TOKEN", "x" * 32)
    done = subprocess.run(
        [docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
