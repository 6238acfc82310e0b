"""Fixtures that tests of commands share."""

from support.redis_server import start_redis, start_tls_redis  # noqa: F401
from support.rtsp_server import start_camera  # noqa: F401
from support.sink_values import make  # noqa: F401
