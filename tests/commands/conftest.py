"""A real redis-server for this folder's tests."""

from redis_server import start_redis  # noqa: F401
from rtsp_server import start_camera  # noqa: F401
