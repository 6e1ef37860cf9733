#!/usr/bin/env python3
"""A network between processes on the loopback address that a test can cut.

    python3 bench/partition.py        (tests itself)

A `Mesh` listens on one port for each pair of processes that one dials and the other is dialled; whoever should dial through it is told that port in
place of the real one. It passes bytes on, and looks at none of them: TLS goes through. Between two processes it can

    cut        carry nothing either way. Connections stay open, new ones are accepted, and what is sent waits, as in a network that loses packets
               and then sends them again. `reset=True`: connections are reset, and new ones are refused.
    one_way    carry nothing from the one to the other. Connections that are open carry what goes the other way; new ones carry nothing.
    heal       carry all again. What has waited arrives first, even that of connections which their dialler has given up.

An end of a connection that dies behind a cut is not known on the other side before it heals. What waits is bounded by the buffers of sockets: a
sender that fills them waits, too. The mesh acknowledges what it has read, so nothing comes of time-outs of TCP itself; resets stand for these.

The ports are served by a process of their own, so that the test's threads do not delay them. It ends with the mesh, or with the test.
"""
import asyncio, multiprocessing, socket, struct, sys, threading, time

# Of a socket's buffer on the way in, and of what one connection holds here on its way out, in each direction.
SOCKET_BYTES = 256 << 10
HELD_BYTES = 256 << 10
# Of one pair of processes; more are reset. They have four at a time, and dial again every 2 s when nothing answers.
CONNECTIONS_MAX = 256
DIAL_TIMEOUT_S = 2
STOP_TIMEOUT_S = 5


class Mesh:
    """The test's handle. `pairs`: the real address, "127.0.0.1:port", of the second process for each (first, second). Several threads may use it."""

    def __init__(self, pairs):
        # Not by fork: threads of the test may hold locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._lock = threading.Lock()
        self._process = context.Process(target=_serve, args=(theirs, pairs), daemon=True)
        self._process.start()
        theirs.close()
        self.ports = self._pipe.recv()

    def address(self, dialler, target):
        return f"127.0.0.1:{self.ports[dialler, target]}"

    def cut(self, a, b, reset=False):
        self._do("cut", a, b, reset)

    def one_way(self, a, b):
        self._do("one_way", a, b)

    def heal(self):
        self._do("heal")

    def open(self):
        """How many connections there are, those that wait for a cut to heal included."""
        return self._do("open")

    def close(self):
        """Closes all ports and connections."""
        with self._lock:
            self._pipe.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _do(self, *order):
        with self._lock:
            self._pipe.send(order)
            return self._pipe.recv()


class End(asyncio.Protocol):
    """One end of a connection through the mesh. It reads as long as its direction is open and the other end takes what it has read."""

    def __init__(self, connection, sender, receiver):
        self.connection, self.flow = connection, (sender, receiver)
        self.transport = self.other = None
        self.full = self.ended = self.lost = False

    def connection_made(self, transport):
        self.transport = transport
        if self.connection.over:
            return transport.abort()
        transport.set_write_buffer_limits(high=HELD_BYTES)
        transport.pause_reading()
        self.connection.update()

    def data_received(self, data):
        if not self.other.lost:
            self.other.transport.write(data)

    def pause_writing(self):
        self.full = True
        self.connection.update()

    def resume_writing(self):
        self.full = False
        self.connection.update()

    def eof_received(self):
        self.ended = True
        if not self.other.lost:
            self.other.transport.write_eof()
        self.connection.update()
        return True

    def connection_lost(self, _):
        self.lost = True
        self.connection.update()

    def update(self, is_open):
        if self.lost:
            # The other side hears of it when it would hear of a byte.
            if is_open:
                self.connection.end()
        elif is_open and self.other.transport and not self.other.full:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()


class Connection:
    """A connection that was accepted, and the one to the target that it goes on in, once nothing between the two is cut."""

    def __init__(self, network, dialler, target, address):
        self.network, self.address, self.pair = network, address, (dialler, target)
        self.near, self.far = End(self, dialler, target), End(self, target, dialler)
        self.near.other, self.far.other = self.far, self.near
        self.dial, self.over = None, False

    def update(self):
        """Is called whenever something has changed."""
        if self.over:
            return
        if len(self.network.connections[self.pair]) > CONNECTIONS_MAX and not self.dial:
            return self.reset()
        if self.near.transport and not self.dial and not any(end.flow in self.network.cuts for end in (self.near, self.far)):
            self.dial = asyncio.ensure_future(self._dial())
        for end in (self.near, self.far):
            if end.transport:
                end.update(end.flow not in self.network.cuts)
        if self.near.ended and self.far.ended:
            self.end()

    async def _dial(self):
        host, port = self.address.rsplit(":", 1)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().create_connection(lambda: self.far, host, int(port)), DIAL_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            return self.reset()
        _bound(self.far.transport.get_extra_info("socket"))

    def end(self):
        """Sends what is left, and closes both ends."""
        self.over = True
        for end in (self.near, self.far):
            if end.transport and not end.transport.is_closing():
                end.transport.close()
        self.network.forget(self)

    def reset(self):
        self.over = True
        if self.dial:
            self.dial.cancel()
        for end in (self.near, self.far):
            if end.transport and not end.lost:
                _reset_on_close(end.transport.get_extra_info("socket"))
                end.transport.abort()
        self.network.forget(self)


class Network:
    """The ports, and what is cut. `cuts`: directions that carry nothing."""

    def __init__(self, pairs):
        self.addresses, self.held, self.servers, self.connections = pairs, {}, {}, {pair: set() for pair in pairs}
        self.cuts = set()
        for pair in pairs:
            # This socket does not listen. It keeps the port while another one on it is closed, for connections to be refused.
            self.held[pair] = held = socket.socket()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
        self.ports = {pair: held.getsockname()[1] for pair, held in self.held.items()}

    async def listen(self, pair):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bound(listener)
        listener.bind(("127.0.0.1", self.ports[pair]))
        self.servers[pair] = await asyncio.get_running_loop().create_server(lambda: self.accept(pair), sock=listener)

    def accept(self, pair):
        connection = Connection(self, *pair, self.addresses[pair])
        self.connections[pair].add(connection)
        return connection.near

    def forget(self, connection):
        self.connections[connection.pair].discard(connection)

    def update(self):
        for connection in [one for of_pair in self.connections.values() for one in of_pair]:
            connection.update()

    async def cut(self, a, b, reset):
        self.cuts |= {(a, b), (b, a)}
        self.update()
        for pair in {(a, b), (b, a)} & set(self.servers) if reset else ():
            self.servers.pop(pair).close()
            for connection in list(self.connections[pair]):
                connection.reset()

    async def one_way(self, a, b):
        self.cuts.add((a, b))
        self.update()

    async def heal(self):
        self.cuts.clear()
        for pair in set(self.addresses) - set(self.servers):
            await self.listen(pair)
        self.update()

    async def open(self):
        return sum(map(len, self.connections.values()))


def _bound(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)


def _reset_on_close(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _serve(pipe, pairs):
    asyncio.run(_obey(pipe, Network(pairs)))


async def _obey(pipe, network):
    for pair in network.addresses:
        await network.listen(pair)
    pipe.send(network.ports)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.fileno(), ready.set)
    while True:
        await ready.wait()
        ready.clear()
        try:
            while pipe.poll():
                name, *arguments = pipe.recv()
                pipe.send(await getattr(network, name)(*arguments))
        except (EOFError, OSError):
            # The test has closed the mesh, or is gone.
            return


def _test():
    """Each kind of cut, on a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def echo(served):
        try:
            while data := served.recv(1 << 16):
                served.sendall(data)
        except OSError:
            pass
        served.close()

    def serve():
        while True:
            try:
                served, _ = listener.accept()
            except OSError:
                return
            accepted.append(served)
            threading.Thread(target=echo, args=(served,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    mesh = Mesh({("a", "b"): "127.0.0.1:%d" % listener.getsockname()[1]})
    dial = lambda: socket.create_connection(("127.0.0.1", mesh.ports["a", "b"]), timeout=0.3)

    def carries(sock, data=b"ping", seconds=5.0):
        sock.settimeout(seconds)
        threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
        found = b""
        try:
            while len(found) < len(data):
                piece = sock.recv(1 << 16)
                if not piece:
                    return False
                found += piece
        except OSError:
            return False
        return found == data

    def silent(sock):
        sock.settimeout(0.3)
        try:
            return sock.recv(1) is None
        except socket.timeout:
            return True

    def until(what):
        end = time.monotonic() + 5
        while not what():
            assert time.monotonic() < end
            time.sleep(0.01)

    try:
        first = dial()
        assert carries(first) and carries(first, bytes(range(256)) * 40_000), "it carries bytes"
        mesh.cut("a", "b")
        second = dial()
        first.sendall(b"late")
        second.sendall(b"new")
        assert silent(first) and silent(second) and len(accepted) == 1, "a cut carries nothing, and says so to nobody"
        mesh.heal()
        first.settimeout(5), second.settimeout(5)
        assert first.recv(9) == b"late" and second.recv(9) == b"new", "what has waited arrives"
        mesh.one_way("a", "b")
        first.sendall(b"x")
        accepted[0].sendall(b"y")
        first.settimeout(5)
        assert first.recv(9) == b"y" and silent(first), "the other way is open"
        mesh.heal()
        first.settimeout(5)
        assert first.recv(9) == b"x"
        mesh.one_way("b", "a")
        first.sendall(b"z")
        assert silent(first)
        mesh.heal()
        first.settimeout(5)
        assert first.recv(9) == b"z"
        # Bounds: whoever sends into a cut waits before long.
        mesh.cut("a", "b")
        second.settimeout(0.5)
        sent = 0
        try:
            while sent < 1 << 30:
                sent += second.send(bytes(1 << 16))
        except socket.timeout:
            pass
        assert sent < 32 << 20, f"{sent} bytes wait"
        # An end that dies behind a cut is known after it.
        accepted[0].shutdown(socket.SHUT_RDWR)
        assert silent(first), "a cut does not carry the end of a connection"
        mesh.heal()
        first.settimeout(5)
        assert first.recv(1) == b""
        first.close()
        second.close()
        until(lambda: mesh.open() == 0)
        third = dial()
        assert carries(third)
        mesh.cut("a", "b", reset=True)
        third.settimeout(5)
        for refused in (lambda: third.recv(1), dial):
            try:
                refused()
                raise AssertionError("it is not reset")
            except ConnectionError:
                pass
        mesh.heal()
        assert carries(dial()), "the port is the same after a reset"
        listener.close()
        port = mesh.ports["a", "b"]
    finally:
        process = mesh._process
        mesh.close()
    assert process.exitcode == 0, f"the mesh ended with {process.exitcode}"
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1)
        raise AssertionError("the mesh still listens")
    except ConnectionRefusedError:
        print("partition.py: all kinds of cuts do what they should")


if __name__ == "__main__":
    sys.exit(_test())
