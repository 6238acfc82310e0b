from __future__ import annotations

from rtsp_server import start_camera  # noqa: F401
