"""Values to put into sinks, and servers."""

from support.redis_server import start_redis, start_tls_redis  # noqa: F401
from support.sink_values import make  # noqa: F401
