"""The Kombu transport `raftmq://`: what Kombu and Celery ask of a transport as a whole.

It is a native transport, the sibling of Kombu's pyamqp: exchanges, queues, prefetch and
redelivery are the broker's. Celery is told `driver_type = "amqp"`, as it turns gossip and
mingling on for that name alone.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from amqp import exceptions as amqp
from kombu.transport import base

from broker.client import Client
from broker.errors import RaftMQError
from kombu_transport import options, url
from kombu_transport.channel import EXCHANGE_TYPES, Channel
from kombu_transport.connection import Connection
from kombu_transport.errors import translated


class Transport(base.Transport):
    """See the module. One per `kombu.Connection`; Kombu reads most attributes from the class."""

    can_parse_url = True
    default_port = url.PORT

    # py-amqp's, for Kombu itself raises some of them and looks for all of them.
    connection_errors = (amqp.ConnectionError, OSError)
    channel_errors = (amqp.ChannelError,)
    recoverable_connection_errors = (
        amqp.RecoverableConnectionError,
        amqp.MessageNacked,
        OSError,
    )
    recoverable_channel_errors = (amqp.RecoverableChannelError,)

    driver_type = "amqp"
    driver_name = "raftmq"

    implements = base.Transport.implements.extend(
        asynchronous=True,
        heartbeats=True,
        batch_publish=True,
        exchange_type=EXCHANGE_TYPES,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        url.hide_login(client)

    def driver_version(self) -> str:
        """Of the distribution that this transport came with."""
        try:
            return version("raftmq")
        except PackageNotFoundError:  # on the path only, not installed
            return "N/A"

    # --- connections and channels ---------------------------------------------------------

    def establish_connection(self) -> Connection:
        """A session with the first node that answers, of all that the URLs name.

        It takes the connection's `connect_timeout`, in seconds, at most. Raise a recoverable
        connection error when none answers, `ConfigError` for a wrong URL or option.
        """
        client = self.client
        address = url.address_of(client)
        chosen = options.parse(client.transport_options)
        timeout = client.connect_timeout or options.CONNECT_TIMEOUT_S
        broker = Client(
            url.render(address),
            timeout=chosen.request_timeout,
            connect_timeout=timeout,
            grace=chosen.session_grace,
            reconnect=chosen.reconnect_timeout,
            publish_window=chosen.publish_window,
            publish_window_bytes=chosen.publish_window_bytes,
            name=chosen.connection_name,
        )
        try:
            broker.open(timeout)
        except RaftMQError as error:
            broker.collect()
            raise translated(error) from error
        return Connection(broker, chosen, client)

    def verify_connection(self, connection: Connection) -> bool:
        return connection.connected

    def close_connection(self, connection: Connection) -> None:
        connection.close()
        connection.client = None

    def create_channel(self, connection: Connection) -> Channel:
        return connection.channel()

    def close_channel(self, channel: Channel) -> None:
        channel.close()

    def drain_events(self, connection: Connection, timeout: float | None = None) -> None:
        """See `Connection.drain_events`."""
        connection.drain_events(timeout)

    def _collect(self, connection: Connection | None) -> None:
        # Kombu's hook for "drop it all, send nothing": after a fork, and after every error.
        if connection is not None:
            connection.collect()

    # --- event loop and heartbeats --------------------------------------------------------

    def register_with_event_loop(self, connection: Connection, loop: Any) -> None:
        connection.register(loop)

    def unregister_from_event_loop(self, connection: Connection, loop: Any) -> None:
        connection.unregister()

    def get_heartbeat_interval(self, connection: Connection) -> float:
        """Seconds, as the program wished; 0 when it wished for none."""
        return connection.heartbeat

    def heartbeat_check(self, connection: Connection, rate: float = 2) -> None:
        """Raise a recoverable connection error when the session is lost.

        There is nothing to send: the client keeps its session alive in the background, even
        while the program computes.
        """
        connection.check()

    # --- what Kombu asks to know ----------------------------------------------------------

    def qos_semantics_matches_spec(self, connection: Connection) -> bool:
        """False: a prefetch count is per channel, which Celery must ask for as "global"."""
        return False

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """All nodes in one URL, with the password masked unless it is asked for."""
        if include_password:
            return url.render(url.address_of(self.client))
        return url.render(url.address_of(self.client, password=mask), safe=mask)

    @property
    def default_connection_params(self) -> dict[str, Any]:
        return {"hostname": url.LOCAL, "virtual_host": "/"}
