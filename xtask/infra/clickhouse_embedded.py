#!/usr/bin/env python3
"""ClickHouse's own engine behind its HTTP interface on 127.0.0.1, for tests and demos: no container, no package.

The engine comes from a Python package; clickhouse-up.sh installs it and starts this program. By hand:

    pip install --no-deps chdb-core clickhouse-cityhash lz4
    clickhouse_embedded.py --port 8123 --path DATA [--user NAME:PASSWORD] [--profile NAME=VALUE] [--const NAME]

--profile gives every request a setting, as a user's profile does, and --const forbids requests to change one.

Every request runs on a connection of its own (1 ms), so that its settings, database and temporary tables touch no
other's; `session_id` keeps a connection from request to request.

Faults on demand, which a real server does not have: POST /_fault?mode=MODE&count=1[&match=insert][&seconds=2] hits the
next `count` requests whose SQL has `match` in it.

    reject  503 before it runs
    delay   it waits before it runs
    drop    it runs and commits, then the socket is cut without an answer
    error   it runs and commits, then the answer is 503 with code 210
    clear   no fault from now on, whatever was asked for before; with `match`, none of those that have the same
"""
import argparse, json, os, re, signal, struct, tempfile, threading, time, uuid, zlib
from base64 import b64decode
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import lz4.block, lz4.frame
from chdb.state.sqlitelike import Connection
from clickhouse_cityhash.cityhash import CityHash128

CONFIG = """<clickhouse><query_log><database>system</database><table>query_log</table>
<flush_interval_milliseconds>500</flush_interval_milliseconds></query_log>
<backups><allowed_path>{path}/backups/</allowed_path></backups></clickhouse>"""
# chDB starts with the defaults of clickhouse-local; these put back the server's.
SERVER_DEFAULTS = "SET implicit_select = 0, allow_introspection_functions = 0"
NOT_SETTINGS = set("query database user password quota_key session_id session_timeout session_check close_session role "
                   "stacktrace query_id compress decompress default_format buffer_size wait_end_of_query "
                   "client_protocol_version".split())
HTTP_STATUS = {194: 401, **dict.fromkeys((192, 193, 195, 497, 516), 403), 48: 501, 209: 503, 210: 503,
               **dict.fromkeys((6, 25, 26, 27, 36, 38, 41, 43, 53, 62, 72, 117, 190, 427, 441, 456, 457), 400),
               **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 81, 115), 404)}
INSERT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*INSERT\s+INTO\b", re.I | re.S)
INSERT_FORMAT = re.compile(rb"(.*?)\s+FORMAT\s+(\w+)[ \t;]*(?:\r?\n)?", re.I | re.S)  # the data follow it
INLINE = re.compile(rb"\b(?:VALUES|SELECT|WITH|FROM\s+INFILE)\b", re.I)
TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.I)
DECODERS = {"lz4": lz4.frame.LZ4FrameDecompressor, "gzip": lambda: zlib.decompressobj(31)}
INPUT = re.compile(r"\binput\s*\(", re.I)


class DBError(Exception):
    def __init__(self, message, code=1002):
        found = re.search(r"Code: (\d+)\. DB::.*", message, re.S)
        self.code = int(found[1]) if found else code
        self.text = (found[0] if found else f"Code: {code}. DB::Exception: {message}").rstrip()
        self.text += "" if "(version " in self.text else f" (version {Engine.version} (official build))"


class Engine:
    """The one engine of this process; it lives as long as its first connection, `root`."""
    version = "?"

    def __init__(self, path, config_file=None, profile=()):
        pairs = (setting.split("=", 1) for setting in profile)
        self.defaults = ", ".join([SERVER_DEFAULTS, *(f"`{name}` = {quote(value)}" for name, value in pairs)])
        os.makedirs(path, exist_ok=True)
        if not config_file:
            config_file = f"{path}/config.xml"
            with open(config_file, "w") as f:
                f.write(CONFIG.format(path=path))
        self.uri = f"{path}/data?config-file={config_file}"
        self.sessions, self.lock, self.root = {}, threading.Lock(), self.connect()
        Engine.version, self.timezone = run(self.root, "SELECT version(), timezone()")[0].decode().split()

    def connect(self):
        connection = Connection(self.uri)
        run(connection, self.defaults)
        return connection

    def session(self, session_id):
        with self.lock:
            found = self.sessions.get(session_id) or (self.connect(), threading.Lock())
            return self.sessions.setdefault(session_id, found) if session_id else found


def run(connection, sql, fmt="TabSeparated", params=None):
    try:
        result = connection.query(sql, fmt, params=params or {})
    except Exception as e:
        raise DBError(str(e)) from None
    return result.bytes(), {"read_rows": result.storage_rows_read(), "read_bytes": result.storage_bytes_read(),
                            "written_rows": result.rows_written(), "written_bytes": result.bytes_written(),
                            "result_rows": result.rows_read(), "result_bytes": result.size()}


def insert(connection, sql, fmt, chunks, params):
    """Through a file in memory, because chDB's own streaming insert (send_insert) reports success when a
    materialized view throws, a constraint is violated or a table has too many parts."""
    with open(os.memfd_create("insert"), "wb") as f:
        f.writelines(chunks)
        f.flush()
        name = f"/proc/self/fd/{f.fileno()}"
        if INPUT.search(sql):  # INSERT ... SELECT ... FROM input('...') FORMAT fmt
            sql = INPUT.sub(f"file('{name}', '{fmt}', ", sql, count=1)
        else:
            head, settings, tail = re.match(r"(.*?)(\bSETTINGS\b|$)(.*)", sql, re.I | re.S).groups()
            sql = f"{head} FROM INFILE '{name}' COMPRESSION 'none' {settings}{tail} FORMAT {fmt}"
        return run(connection, sql, params=params)


def body_chunks(rfile, headers):
    """The request body as it comes in. A cut connection raises: it must never look like the end."""
    def pieces(size):
        while size:
            if not (data := rfile.read1(min(size, 1 << 20))):
                raise EOFError
            size -= len(data)
            yield data

    if "chunked" not in headers.get("Transfer-Encoding", "").lower():
        yield from pieces(int(headers.get("Content-Length") or 0))
        return
    while size := int(rfile.readline(1 << 16).split(b";")[0], 16):  # ValueError at the end of the stream
        yield from pieces(size)
        rfile.readline(1 << 16)
    while rfile.readline(1 << 16).strip():  # trailers
        pass


def decoded(chunks, encoding):
    """Undoes Content-Encoding."""
    if encoding not in DECODERS:
        raise DBError(f"Unknown compression method: {encoding} (NOT_IMPLEMENTED)", 48)
    decoder = DECODERS[encoding]()
    for chunk in chunks:
        yield decoder.decompress(chunk)
    if not decoder.eof:
        raise DBError("Cannot read all data: the compressed body is cut short. (CANNOT_READ_ALL_DATA)", 33)


def unframed(chunks):
    """Undoes decompress=1: frames of checksum (16 bytes), method (1), compressed and raw size (4 + 4), data."""
    buffer = b""
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 25 and len(buffer) >= (end := 16 + struct.unpack_from("<I", buffer, 17)[0]):
            method, _, size = struct.unpack_from("<BII", buffer, 16)
            if buffer[:16] != checksum(buffer[16:end]):
                raise DBError("Checksum doesn't match: corrupted data. (CHECKSUM_DOESNT_MATCH)", 40)
            if method not in (0x02, 0x82):
                raise DBError(f"Unknown compression method: {method:#x} (UNKNOWN_CODEC)", 432)
            yield lz4.block.decompress(buffer[25:end], uncompressed_size=size) if method == 0x82 else buffer[25:end]
            buffer = buffer[end:]
    if buffer:
        raise DBError("Cannot read all data: a compressed block is cut short. (CANNOT_READ_ALL_DATA)", 33)


def framed(data):
    """Does compress=1."""
    for i in range(0, len(data), 1 << 20):
        packed = lz4.block.compress(data[i:i + (1 << 20)], store_size=False)
        block = struct.pack("<BII", 0x82, len(packed) + 9, len(data[i:i + (1 << 20)])) + packed
        yield checksum(block) + block


def checksum(block):
    return struct.pack("<QQ", *divmod(CityHash128(block), 1 << 64))


def quote(value, mark="'"):
    return mark + value.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


class Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "ClickHouse-embedded", ""
    rbufsize, wbufsize, disable_nagle_algorithm = 1 << 20, 1 << 16, True
    engine, credentials, constants, faults, query_id, log_message = None, {}, (), [], "", lambda *_: None

    def do_GET(self):
        url = urlsplit(self.path)
        args = dict(parse_qsl(url.query, keep_blank_values=True))
        body = body_chunks(self.rfile, self.headers)
        if url.path == "/_fault":
            if args.get("mode") == "clear":
                self.faults[:] = [fault for fault in self.faults if args.get("match", fault["match"]) != fault["match"]]
            else:
                self.faults.append({"count": 1, "match": "", "seconds": 1, **args})
        if url.path in ("/ping", "/replicas_status", "/_fault") or (self.command == "GET" and not args.get("query")):
            return self.reply(200, b"Ok.\n")
        self.query_id = args.get("query_id") or str(uuid.uuid4())
        try:
            self.authenticate(args)
            self.query(args, body)
        except DBError as e:
            for _ in body:  # what is left unread would be taken for the next request
                pass
            self.reply(HTTP_STATUS.get(e.code, 500), e.text.encode() + b"\n", {"X-ClickHouse-Exception-Code": e.code})
        except (EOFError, OSError, ValueError):  # the client went away, or an injected fault
            self.close_connection = True

    do_POST = do_GET

    def authenticate(self, args):
        user, password = args.get("user"), args.get("password", "")
        if "X-ClickHouse-User" in self.headers:
            user, password = self.headers["X-ClickHouse-User"], self.headers.get("X-ClickHouse-Key", "")
        elif self.headers.get("Authorization", "").startswith("Basic "):
            user, _, password = b64decode(self.headers["Authorization"][6:]).decode().partition(":")
        if self.credentials and self.credentials.get(user or "default") != password:
            raise DBError(f"{user}: Authentication failed: password is incorrect, or there is no user with such name. "
                          "(AUTHENTICATION_FAILED)", 516)

    def statement(self, args, body):
        """(SQL without its FORMAT, format, chunks of data) for an INSERT with data, (SQL, None, None) else."""
        sql = args.get("query", "")
        if sql and INSERT.match(sql):
            if found := TRAILING_FORMAT.search(sql) or re.search(r"\b(VALUES)\s*$", sql, re.I):
                return sql[:found.start()], found[1], body
            if not INLINE.search(sql.encode()):
                return sql, args.get("default_format") or "Values", body
        text = sql.encode() + (b"\n" if sql else b"") + b"".join(body)
        if INSERT.match(text[:4096].decode("utf-8", "replace")) and (found := INSERT_FORMAT.match(text)):
            if not INLINE.search(found[1]) or INPUT.search(found[1].decode()):
                return found[1].decode(), found[2].decode(), [text[found.end():]]
        return text.decode("utf-8", "replace"), None, None

    def query(self, args, body):
        if encoding := self.headers.get("Content-Encoding"):
            body = decoded(body, encoding.lower())
        if args.get("decompress") == "1":
            body = unframed(body)
        if self.headers.get_content_type() == "multipart/form-data":  # the query and its parameters as form fields
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            for part in message_from_bytes(head + b"".join(body), policy=policy.HTTP).iter_parts():
                args[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True).decode()
        sql, data_format, data = self.statement(args, body)
        if (fault := self.fault(sql)) == "reject":
            raise DBError("Injected fault: refused before it ran. (SOCKET_TIMEOUT)", 209)
        default_format = args.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
        settings = {k: v for k, v in args.items() if k not in NOT_SETTINGS and not k.startswith("param_")}
        settings |= {"readonly": "2"} if self.command == "GET" else {}
        params = {k[6:]: v for k, v in args.items() if k.startswith("param_")}
        started, session_id = time.monotonic(), args.get("session_id")
        connection, lock = self.engine.session(session_id)
        with lock:
            try:
                if database := args.get("database") or self.headers.get("X-ClickHouse-Database"):
                    run(connection, "USE " + quote(database, "`"))
                for name in settings.keys() & set(self.constants):
                    sql_of_value = f"SELECT value FROM system.settings WHERE name = {quote(name)}"
                    if run(connection, sql_of_value)[0].decode().strip() != settings[name]:
                        raise DBError(f"Setting {name} should not be changed. (SETTING_CONSTRAINT_VIOLATION)", 452)
                if settings:
                    run(connection, "SET " + ", ".join(f"`{k}` = {quote(v)}" for k, v in settings.items()))
                if data_format:
                    out, summary = insert(connection, sql, data_format, data, params)
                else:
                    out, summary = run(connection, sql, default_format, params)
            finally:
                if not session_id:
                    connection.close()
                elif settings:  # they were of this request only
                    run(connection, "SET " + ", ".join(f"`{k}` = DEFAULT" for k in settings) + "; " + self.engine.defaults)
        if fault == "drop":
            raise EOFError
        if fault == "error":
            raise DBError("Injected fault: it ran, the answer is lost. (NETWORK_ERROR)", 210)
        summary["elapsed_ns"] = int((time.monotonic() - started) * 1e9)
        self.reply(200, b"".join(framed(out)) if args.get("compress") == "1" else out, {
            "X-ClickHouse-Format": (TRAILING_FORMAT.search(sql) or ("", default_format))[1],
            "X-ClickHouse-Summary": json.dumps({k: str(v) for k, v in summary.items()})})

    def fault(self, sql):
        for fault in list(self.faults):
            if int(fault["count"]) > 0 and fault["match"].lower() in sql.lower():
                fault["count"] = int(fault["count"]) - 1
                time.sleep(float(fault["seconds"]) if fault["mode"] == "delay" else 0)
                return fault["mode"]

    def reply(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain; charset=UTF-8", "Content-Length": len(body),
                            "X-ClickHouse-Server-Display-Name": "embedded", "X-ClickHouse-Query-Id": self.query_id,
                            "X-ClickHouse-Timezone": self.engine.timezone, **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8123, help="0 takes a free one; the line printed names it")
    parser.add_argument("--path", help="data directory, kept between runs (default: a temporary one)")
    parser.add_argument("--config-file", help="a ClickHouse config.xml of your own")
    parser.add_argument("--user", action="append", default=[], metavar="NAME:PASSWORD", help="require a login")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME=VALUE", help="a setting of all requests")
    parser.add_argument("--const", action="append", default=[], metavar="NAME", help="a setting that no request may change")
    options = parser.parse_args()
    temporary = None if options.path else tempfile.TemporaryDirectory(prefix="clickhouse-embedded-")
    path = os.path.abspath(options.path or temporary.name)
    Handler.engine = engine = Engine(path, options.config_file, options.profile)
    Handler.constants = tuple(options.const)
    Handler.credentials = dict(u.split(":", 1) for u in options.user)
    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"ready http://127.0.0.1:{server.server_port} ClickHouse {Engine.version}", flush=True)
    server.serve_forever(poll_interval=0.1)
    for connection in [c for c, _ in engine.sessions.values()] + [engine.root]:
        connection.close()


if __name__ == "__main__":
    main()
