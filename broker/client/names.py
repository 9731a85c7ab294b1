"""What a name may be, checked before it is sent."""

from __future__ import annotations

from broker.errors import InvalidArgument

NAME_BYTES_MAX = 255


def check_name(field: str, name: str) -> None:
    """Raise `InvalidArgument`, naming the field, for a name of more than 255 bytes of UTF-8."""
    if len(name) * 4 <= NAME_BYTES_MAX:
        return  # no character has more than 4 bytes
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > NAME_BYTES_MAX:
        raise InvalidArgument(f"{field} has {size} bytes, the limit is {NAME_BYTES_MAX}")
