"""RaftMQ for Kombu and Celery: importing this package makes `raftmq://` URLs known to Kombu.

Celery needs no import at all, see `kombu_transport.register`.
"""

from kombu_transport.register import register

register()
