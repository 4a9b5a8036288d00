"""Answer anything that gets out: TCP on the ports that installers call home on, UDP on 53."""

import selectors
import signal
import socket
import sys

TCP_PORTS = (22, 53, 80, 123, 443, 5000, 8080)
ANSWER = b"lab-outside\n"


def main() -> None:
    """Serve until the container is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    selector = selectors.DefaultSelector()
    for port in TCP_PORTS:
        tcp = socket.create_server(("0.0.0.0", port))  # noqa: S104 - the lab's network is closed
        selector.register(tcp, selectors.EVENT_READ, "tcp")
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", 53))  # noqa: S104
    selector.register(udp, selectors.EVENT_READ, "udp")
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if key.data == "tcp":
                connection, _ = sock.accept()
                with connection:
                    connection.sendall(ANSWER)
            else:
                _, peer = sock.recvfrom(2048)
                sock.sendto(ANSWER, peer)


if __name__ == "__main__":
    main()
