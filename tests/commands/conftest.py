"""Fixtures that tests of commands share."""

from redis_server import start_redis, start_tls_redis  # noqa: F401
from rtsp_server import start_camera  # noqa: F401
from sink_values import make  # noqa: F401
