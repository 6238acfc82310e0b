from __future__ import annotations

from support.rtsp_server import start_camera  # noqa: F401
