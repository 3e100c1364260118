"""Put on PYTHONPATH, this cuts a Python process and its children off from every network but loopback.

It is an audit hook: it also sees connections made below the `socket` module, and cannot be taken off again.
"""

import errno
import ipaddress
import sys

LOCAL_NAMES = {"localhost", "", None}


def is_local(host) -> bool:
    """Whether a host, by name or address, is this machine."""
    host = host.decode() if isinstance(host, (bytes, bytearray)) else host
    if host in LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse(event: str, arguments: tuple) -> None:
    """Raise OSError, as a cut cable would, for a connection or a name look-up that leaves this machine."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None  # a string: a Unix socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if not is_local(host):
        raise OSError(errno.ENETUNREACH, f"the tests run without a network: {event} to {host!r} was refused")


sys.addaudithook(refuse)
