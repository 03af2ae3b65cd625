"""The API's socket below the level of requests: odd bytes, odd clients, too many of them.

Common to all: the answer says why, the connection ends where its meaning became unclear, the process
and every other client go on, and nothing is left behind.
"""

from __future__ import annotations

import array
import os
import random
import select
import socket
import struct
import time

from mayfly import Monitor, Raw, needs

CLOSING = "\nAll previous unanswered requests will be dropped."
MAX = 51200
FULL = (
    b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    b'{ "error": "Too many open connections" }'
)


def put(path: str, body: bytes, *headers: str) -> bytes:
    head = "".join(h + "\r\n" for h in (f"Content-Length: {len(body)}", *headers))
    return f"PUT {path} HTTP/1.1\r\n{head}\r\n".encode() + body


GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def bad(m: Monitor, data: bytes, *saying: str) -> None:
    """Sends it on a connection of its own: a 400 that says why, then the end."""
    raw = m.raw()
    raw.send(data)
    answer = raw.response()
    assert answer.status == 400, f"{data[:80]!r}: {answer}"
    assert answer.headers["connection"] == "close", answer.head
    error = answer.json["error"]
    assert error.endswith(CLOSING), answer
    for word in saying:
        assert word in error, f"{data[:80]!r}: {error}"
    assert raw.closed()
    raw.close()


# ---- how a request is cut ------------------------------------------------------------------------


def test_a_request_cut_anywhere():
    request = put("/machine-config", b'{"vcpu_count":3,"mem_size_mib":64}', "Host: a")
    with Monitor() as m:
        raw = m.raw()
        for at in range(1, len(request)):
            raw.send(request[:at])
            m.api.get("/version")  # a round trip: the first part has been read
            raw.send(request[at:])
            assert raw.response().status == 204, f"cut at {at}"
        for byte in request:
            raw.send(bytes([byte]))
        assert raw.response().status == 204
        assert m.api.get("/machine-config").json["vcpu_count"] == 3


def test_pipelined_requests_are_answered_in_order():
    with Monitor() as m:
        for count in (2, 100, 1000):
            raw = m.raw()
            raw.send(b"".join(
                put("/machine-config", b'{"vcpu_count":%d,"mem_size_mib":64}' % (i % 32 + 1))
                + b"GET /machine-config HTTP/1.1\r\n\r\n"
                for i in range(count)))
            for i in range(count):
                assert raw.response().status == 204
                assert raw.response().json["vcpu_count"] == i % 32 + 1
            raw.close()


def test_back_pressure():
    # Nobody reads the answers: we stop reading requests, and hold little of either.
    with Monitor() as m:
        m.api.must("GET", "/version", status=200)
        before = m.rss_kib()
        raw = m.raw()
        raw.sock.setblocking(False)
        data = b"GET /vm/config HTTP/1.1\r\n\r\n" * 10000
        sent = 0
        while True:
            _, writable, _ = select.select([], [raw.sock], [], 0.5)
            if not writable:
                break
            sent += raw.sock.send(data[sent % 27:])
            assert sent < 16 << 20, "it reads for ever and answers nobody"
        assert m.rss_kib() - before < 1024, "answers pile up"
        m.assert_alive()
        # All that was taken is answered once somebody reads.
        raw.sock.setblocking(True)
        for _ in range(sent // 27 - 1):
            assert raw.response().status == 200
        raw.close()


def test_what_follows_a_body_is_the_next_request():
    with Monitor() as m:
        raw = m.raw()
        raw.send(put("/entropy", b"{}") + b"\r\n")
        assert raw.response().status == 204
        answer = raw.response()
        assert answer.status == 400 and answer.json["error"].startswith("Invalid request."), answer
        assert raw.closed()
        bad(m, b'PUT /entropy HTTP/1.1\r\n\r\n{}\r\n'.replace(b"PUT", b"POST"), "HTTP Method")


# ---- heads ---------------------------------------------------------------------------------------


def test_odd_request_lines():
    with Monitor() as m:
        method, version = "Invalid HTTP Method: Unsupported HTTP method.", "Invalid HTTP Version: "
        for line, saying in (
            ("get / HTTP/1.1", method), ("POST / HTTP/1.1", method), ("HEAD / HTTP/1.1", method),
            ("OPTIONS * HTTP/1.1", method), ("G" * 900 + " / HTTP/1.1", method),
            ("PRI * HTTP/2.0", method), ("GET / HTTP/0.9", version), ("GET / HTTP/2.0", version),
            ("GET / HTTP/1.1 ", version), ("GET / HTTP/11", version), ("GET /", "Invalid request."),
            ("GET", "Invalid request."), ("", "Invalid request."), ("GET  HTTP/1.1", "Invalid URI: Empty"),
            ("GET * HTTP/1.1", "Invalid URI: "), ("GET version HTTP/1.1", "Invalid URI: "),
            ("GET /\u00e9 HTTP/1.1", "Invalid URI: "), ("GET\t/\tHTTP/1.1", "Invalid request."),
            ("GET /\0 HTTP/1.1", "Invalid request."), ("\x16\x03\x01\x02\0\x01", "Invalid request."),
            ("GET /" + "a" * 1024 + " HTTP/1.1", "Overflow/Underflow"),
        ):
            bad(m, line.encode() + b"\r\n\r\n", saying)
        bad(m, b"G" * 10240 + b" / HTTP/1.1\r\n\r\n", "Overflow/Underflow")
        raw = m.raw()
        raw.send(b"GET http://localhost/version HTTP/1.1\r\n\r\n")
        assert raw.response().status == 200
        m.assert_alive()


def test_http_1_0_and_connection_close():
    with Monitor() as m:
        for head in (b"GET /version HTTP/1.0\r\n\r\n",
                     b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n"):
            raw = m.raw()
            raw.send(head)
            answer = raw.response()
            assert answer.status == 200 and answer.head.startswith(b"HTTP/1.1 200 \r\n"), answer.head
            assert answer.headers["connection"] == "close"
            assert raw.closed()
        raw = m.raw()
        raw.send(b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
        assert [raw.response().status for _ in range(2)] == [200, 200]


def test_odd_headers():
    with Monitor() as m:
        for header in (b"NoColon", b": value", b"Key : v", b"Ke y: v", b"Key: a\x00b", b"Key: a\tb",
                       b"Key: a\nb", b"Key: a\rb", b"Key: a\r\n folded", b"Key: a\r\n\tfolded",
                       b"K\xc3\xa9y: v", b"Key: \x7f"):
            bad(m, b"GET / HTTP/1.1\r\n" + header + b"\r\n\r\n", "Invalid header. Reason: Header is "
                "incorrectly formatted. Key: ")
        bad(m, b"GET / HTTP/1.1\nHost: a\n\n", "Invalid request.")
        bad(m, b"GET / HTTP/1.1\r\nA: " + b"x" * 1100 + b"\r\n\r\n", "Overflow/Underflow")
        bad(m, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n", "More than 64 headers")
        bad(m, b"GET / HTTP/1.1\r\n" + (b"A: " + b"x" * 1000 + b"\r\n") * 9 + b"\r\n", "Overflow")
        for value in (b"identity;q=0", b"gzip, *;q=0", b""):
            bad(m, b"GET / HTTP/1.1\r\nAccept-Encoding: " + value + b"\r\n\r\n",
                "Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value: ")
        m.assert_alive()


def test_endless_heads():
    # The memory used does not follow what is sent.
    with Monitor() as m:
        m.api.must("GET", "/version", status=200)
        before = m.rss_kib()
        for data in (b"G" * (1 << 20), b"GET / HTTP/1.1\r\nA: " + b"x" * (1 << 20),
                     b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100000):
            raw = m.raw()
            try:
                raw.send(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answer = raw.response()
            assert answer.status == 400 and "error" in answer.json, answer
            raw.close()
        m.assert_alive()
        assert m.rss_kib() - before < 512


def test_odd_content_lengths():
    invalid = "Invalid header. Reason: Invalid value. Key:Content-Length; Value: "
    with Monitor() as m:
        before = m.api.get("/vm/config").body
        for value in ("-1", "+5", " 5", "5 5", "0x5", "5,5", "", "five", "5.0", str(1 << 32),
                      str(1 << 64), "1" + "0" * 30):
            bad(m, f"PUT /entropy HTTP/1.1\r\nContent-Length: {value}\r\n\r\n{{}}   ".encode(), invalid)
        for second in ("2", "3"):
            bad(m, b"PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: %s\r\n\r\n{}"
                % second.encode(), invalid)
        bad(m, b"PUT /entropy HTTP/1.1\r\nContent-Length : 2\r\n\r\n{}", "incorrectly formatted")
        assert m.api.get("/vm/config").body == before


def test_no_transfer_encoding_is_understood():
    with Monitor() as m:
        before = m.api.get("/vm/config").body
        smuggled = b"d\r\nPUT /entropy \r\n0\r\n\r\n"
        for value in (b"chunked", b"CHUNKED", b"identity", b"chunked, identity", b"xchunked", b"gzip"):
            for length in (b"", b"Content-Length: 5\r\n"):
                for head in (length + b"Transfer-Encoding: %s\r\n" % value,
                             b"Transfer-Encoding: %s\r\n" % value + length,
                             b"transfer-encoding:%s\r\n" % value + length):
                    bad(m, b"PUT /entropy HTTP/1.1\r\n" + head + b"\r\n" + smuggled,
                        "Invalid header. Reason: Invalid value. Key:")
        assert m.api.get("/vm/config").body == before


# ---- bodies --------------------------------------------------------------------------------------


def test_the_largest_body():
    with Monitor() as m:
        raw = m.raw()
        raw.send(put("/entropy", b"{}".ljust(MAX)))
        assert raw.response().status == 204
        # Two behind each other, so that the second one's head lies behind the first one's body.
        raw.send(put("/entropy", b"{}".ljust(MAX)) * 3 + GET)
        assert [raw.response().status for _ in range(4)] == [204, 204, 204, 200]
        bad(m, put("/entropy", b"{}".ljust(MAX + 1)),
            f"Request payload with size {MAX + 1} is larger than the limit of {MAX} allowed by server.")
        bad(m, b"PUT /entropy HTTP/1.1\r\nContent-Length: 4294967295\r\n\r\n", "larger than the limit")
    with Monitor("--http-api-max-payload-size", "10") as m:
        raw = m.raw()
        raw.send(put("/entropy", b"{}".ljust(10)))
        assert raw.response().status == 204
        bad(m, put("/entropy", b"{}".ljust(11)), "larger than the limit of 10 allowed")


def test_100_continue():
    with Monitor() as m:
        raw = m.raw()
        for version in (b"1.1", b"1.0"):
            head = (b"PUT /entropy HTTP/%s\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n"
                    b"Content-Length: 2\r\n\r\n" % version)
            raw.send(head)
            interim = raw.response()
            assert interim.head == (
                b"HTTP/%s 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n" % version
            )
            raw.send(b"{}")
            assert raw.response().status == 204
        bad(m, b"PUT /entropy HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 51201\r\n\r\n",
            "larger than the limit")
        bad(m, put("/entropy", b"{}", "Expect: magic"), "Key:Expect; Value: magic")


# ---- clients -------------------------------------------------------------------------------------


def test_the_eleventh_client_is_told():
    with Monitor() as m:
        clients = [m.raw() for _ in range(10)]
        for client in clients:
            client.send(GET)
            assert client.response().status == 200
        eleventh = m.raw()
        assert eleventh.sock.recv(4096) == FULL
        assert eleventh.closed()
        # A place that becomes free can be had at once.
        for _ in range(20):
            clients.pop(0).close()
            clients.append(m.raw())
            clients[-1].send(GET)
            assert clients[-1].response().status == 200
        for client in clients:
            client.close()


@needs("alone")
def test_slow_clients_are_dropped():
    # Ten that never finish a head: their five seconds over, others are served.
    with Monitor() as m:
        slow = [m.raw() for _ in range(10)]
        begin = time.monotonic()
        for client in slow:
            client.send(b"GET / HTTP/1.1\r\nA: ")
        for client in slow:
            assert client.closed()
        assert 4.5 < time.monotonic() - begin < 5 + 5
        m.assert_alive()


@needs("alone")
def test_trickling_does_not_help():
    # A byte now and then does not put the deadline off; a body has ten seconds.
    with Monitor() as m:
        head, body = m.raw(), m.raw()
        begin = time.monotonic()
        head.send(b"GET / HTTP/1.1\r\nA: ")
        body.send(b"PUT /entropy HTTP/1.1\r\nContent-Length: 5000\r\n\r\n{")
        ended = {}
        while len(ended) < 2 and time.monotonic() - begin < 25:
            for name, client in (("head", head), ("body", body)):
                if name in ended:
                    continue
                try:
                    client.send(b" ")
                    readable, _, _ = select.select([client.sock], [], [], 0.1)
                    if readable and not client.sock.recv(1):
                        ended[name] = time.monotonic() - begin
                except (BrokenPipeError, ConnectionResetError):
                    ended[name] = time.monotonic() - begin
        assert 4.5 < ended["head"] < 9, ended
        assert 9.5 < ended["body"] < 15, ended
        m.assert_alive()


@needs("alone")
def test_a_client_that_never_reads_is_dropped():
    with Monitor() as m:
        raw = m.raw()
        raw.sock.setblocking(False)
        begin = time.monotonic()
        try:
            while True:
                _, writable, _ = select.select([], [raw.sock], [], 0.3)
                if not writable:
                    break
                raw.sock.send(b"GET /vm/config HTTP/1.1\r\n\r\n" * 1000)
            poll = select.poll()
            poll.register(raw.sock, select.POLLHUP)
            assert poll.poll(20000), "still connected"
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - begin > 9
        m.assert_alive()


def test_idle_clients_may_stay():
    with Monitor() as m:
        idle = [m.raw() for _ in range(9)]
        select.select([idle[0].sock], [], [], 6)  # longer than any head may take
        for client in idle:
            client.send(GET)
            assert client.response().status == 200
            client.close()


def test_a_half_closed_client_is_answered():
    with Monitor() as m:
        raw = m.raw()
        raw.send(GET * 3)
        raw.sock.shutdown(socket.SHUT_WR)
        assert [raw.response().status for _ in range(3)] == [200] * 3
        assert raw.closed()
        raw = m.raw()
        raw.send(GET + b"GET /ver")
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.response().status == 200
        assert raw.closed()


def test_clients_that_come_and_go():
    chance = random.Random(1)
    with Monitor() as m:
        for _ in range(3):  # the first makes the monitor expect a start, which takes descriptors
            m.api.get("/")
        before = m.fds()
        m.api.get("/")
        for i in range(1500):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(m.socket))
            what = chance.randrange(6)
            try:
                if what == 1:
                    sock.send(GET[: chance.randrange(len(GET))])
                elif what == 2:
                    sock.send(GET)
                elif what == 3:
                    sock.send(GET)
                    sock.shutdown(socket.SHUT_RDWR)
                elif what == 4:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.send(GET * 100)
                elif what == 5:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            sock.close()
        m.assert_alive()
        assert m.fds() <= before + 2, f"{m.fds()} descriptors, {before} before"


def test_descriptors_that_come_with_a_request():
    with Monitor() as m:
        m.api.get("/")
        before = m.fds()
        ends = os.pipe()
        for _ in range(50):
            raw = m.raw()
            raw.sock.sendmsg([GET], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                      array.array("i", [ends[1]] * 100))])
            assert raw.response().status == 200
            raw.close()
        assert m.fds() <= before + 1
        # Not one of them is kept anywhere: ours is the last writing end.
        os.close(ends[1])
        os.set_blocking(ends[0], False)
        assert os.read(ends[0], 1) == b""
        os.close(ends[0])


def test_no_descriptors_left():
    import resource

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))

    with Monitor(preexec_fn=few) as m:
        clients: list[Raw] = []
        refused = 0
        for _ in range(9):
            client = m.raw()
            try:
                client.send(GET)
                answer = client.response()
                clients.append(client)
                assert answer.status in (200, 503)
                refused += answer.status == 503
            except (ConnectionError, TimeoutError):  # gone before we could ask
                refused += 1
        assert 0 < refused < 9, refused
        ticks = m.cpu_ticks()
        select.select([m.pidfd], [], [], 0.5)
        assert m.cpu_ticks() - ticks < 10, "it turns in circles"
        for client in clients:
            client.close()
        m.assert_alive()


def test_garbage():
    chance = random.Random(7)
    pieces = [GET, put("/entropy", b"{}"), b"\r\n", b"\0", b"Content-Length: 3\r\n", b"HTTP/1.1", b" "]
    with Monitor() as m:
        for _ in range(400):
            data = b"".join(
                chance.choice(pieces) if chance.random() < 0.7 else chance.randbytes(8)
                for _ in range(chance.randrange(1, 12)))
            raw = m.raw()
            raw.send(data)
            raw.sock.shutdown(socket.SHUT_WR)
            while raw.sock.recv(65536):
                pass
            raw.close()
        m.assert_alive()


# ---- what it costs -------------------------------------------------------------------------------


@needs("alone")
def test_memory_after_a_busy_time():
    # 1.5 MiB of memory of its own is what the whole process may have, guest apart.
    def private_kib() -> int:
        text = m.proc("smaps_rollup")
        return sum(int(line.split()[1]) for line in text.splitlines()
                   if line.startswith(("Private_Clean", "Private_Dirty")))

    with Monitor() as m:
        for _ in range(3):
            clients = [m.raw() for _ in range(10)]
            for client in clients:
                client.send(put("/entropy", b"{}".ljust(MAX)) + GET)
            for client in clients:
                assert client.response().status == 204
                assert client.response().status == 200
                client.close()
        m.assert_alive()
        rollup = m.proc("status")
        anonymous = int([x for x in rollup.splitlines() if x.startswith("RssAnon")][0].split()[1])
        assert anonymous < 700, f"{anonymous} KiB anonymous, {private_kib()} KiB private"
