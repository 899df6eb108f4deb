"""A client that sends whatever bytes it is told to: gRPC calls of raw messages, and connections that speak no gRPC at all."""

import socket
import struct

import grpc
import pyarrow as pa
from security import any_, field

SERVICE = "/arrow.flight.protocol.FlightService/"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, HEADERS, CONTINUATION, DATA, RST, WINDOW = 4, 6, 1, 9, 0, 3, 8


def identity(data):
    return data


class Channel:
    """gRPC calls of raw bytes to a server."""

    def __init__(self, url, authorization=None, **options):
        target = url.split("://", 1)[1]
        # Each channel has a connection of its own, and takes headers and messages of any length.
        wide = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1,
                "grpc.max_metadata_size": 16 << 20, "grpc.absolute_max_metadata_size": 16 << 20, "grpc.enable_retries": 0}
        self.channel = grpc.insecure_channel(target, options=list((wide | options).items()))
        self.metadata = [] if authorization is None else [("authorization", authorization)]

    def close(self):
        self.channel.close()

    def unary(self, method, request, metadata=(), timeout=20):
        call = self.channel.unary_unary(SERVICE + method, identity, identity)
        return call(request, metadata=[*self.metadata, *metadata], timeout=timeout)

    def stream(self, method, request, timeout=20, metadata=()):
        """The answers to one message, as they come."""
        call = self.channel.unary_stream(SERVICE + method, identity, identity)
        return call(request, metadata=[*self.metadata, *metadata], timeout=timeout)

    def put(self, messages, timeout=20):
        """All answers to an upload."""
        call = self.channel.stream_stream(SERVICE + "DoPut", identity, identity)
        return list(call(iter(messages), metadata=self.metadata, timeout=timeout))

    def info(self, sql, **more):
        return self.unary("GetFlightInfo", descriptor(any_("CommandStatementQuery", field(1, sql))), **more)

    def act(self, name, body, **more):
        return list(self.stream("DoAction", field(1, name) + field(2, body), **more))


def outcome(ask):
    """("OK", answer), or the status with what was said."""
    try:
        return "OK", ask()
    except grpc.RpcError as error:
        return error.code().name, error.details()


def descriptor(command):
    """A FlightDescriptor of a command; its type is 2."""
    return b"\x08\x02" + field(2, command)


def flight_data(header=b"", body=b"", command=None):
    """A FlightData."""
    first = b"" if command is None else field(1, descriptor(command))
    return first + (field(2, header) if header else b"") + (field(1000, body) if body else b"")


def messages(*batches):
    """The (header, body) of each IPC message of some batches, the schema's first."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    found = []
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, EOFError):
            return found
        found.append((message.metadata.to_pybytes(), message.body.to_pybytes() if message.body else b""))


def ingest(table, mode="create_append"):
    """The command of an upload."""
    not_there, there = {"create": (1, 1), "append": (2, 2), "create_append": (1, 2)}[mode]
    options = bytes([0x08, not_there, 0x10, there])
    return any_("CommandStatementIngest", field(1, options) + field(2, table))


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """An HTTP/2 frame, which may lie about its length."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header, neither indexed nor compressed."""
    def text(data):
        size = len(data)
        if size < 127:
            return bytes([size]) + data
        out, size = [127], size - 127
        while size >= 128:
            out.append(size & 127 | 128)
            size >>= 7
        return bytes([*out, size]) + data
    return b"\x00" + text(name.encode()) + text(value if isinstance(value, bytes) else value.encode())


def call_headers(method, **more):
    """The headers of a gRPC call."""
    headers = {":method": "POST", ":scheme": "http", ":path": SERVICE + method, ":authority": "x", "content-type": "application/grpc", "te": "trailers"} | more
    return b"".join(literal(name, value) for name, value in headers.items())


def connect(url, receive_buffer=None):
    """A plain TCP connection."""
    host, port = url.split("://", 1)[1].rsplit(":", 1)
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(20)
    sock.connect((host, int(port)))
    return sock


def ended(sock, limit=20):
    """Whether the server closes a connection within the time; what it says before is thrown away."""
    sock.settimeout(limit)
    try:
        while sock.recv(1 << 16):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


class Proxy:
    """A TCP proxy that can let everything through, or nothing any more, without closing anything: like a cable that was pulled."""

    def __init__(self, url):
        import threading
        host, port = url.split("://", 1)[1].rsplit(":", 1)
        self.target, self.pairs, self.cut = (host, int(port)), [], False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"grpc://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        import threading
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.cut:
                self.pairs.append((client, client))
                continue
            server = socket.create_connection(self.target)
            self.pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        while not self.cut:
            try:
                source.settimeout(0.05)
                data = source.recv(1 << 16)
                if not data:
                    if not self.cut:
                        sink.shutdown(socket.SHUT_WR)
                    return
                sink.settimeout(20)
                sink.sendall(data)
            except TimeoutError:
                continue
            except OSError:
                return

    def close(self):
        self.cut = True
        for sock in [self.listener, *(sock for pair in self.pairs for sock in pair)]:
            sock.close()
