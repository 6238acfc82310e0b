"""Values to put into sinks, and a real redis-server."""

from redis_server import start_redis  # noqa: F401
from sink_values import make  # noqa: F401
