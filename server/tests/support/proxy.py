"""A proxy that counts what passes, and can hold it up or cut it off."""

import socket
import threading


class Proxy:
    """Passes connections on to a port, until `cut_after` bytes of answers have passed; then it breaks all of them off.

    While `passing` is not set, nothing passes and nothing ends, as if the other end hung.
    """

    def __init__(self, port):
        self.target = port
        self.received = 0
        self.cut_after = None
        self.passing = threading.Event()
        self.passing.set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source, target, answers):
        try:
            while data := source.recv(1 << 16):
                self.passing.wait()
                if answers:
                    with self._lock:
                        self.received += len(data)
                        if self.cut_after is not None and self.received > self.cut_after:
                            break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
