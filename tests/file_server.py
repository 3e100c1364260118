"""A web server on this machine for the tests of downloads: it sends files as they are, or fails in a chosen way.

The first part of a path says how, the rest which file: /whole/f.bin, /cut/f.bin; without a name, `bodies[""]`.
"""

import http.server
import io
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ANSWERS = {"missing": 404, "forbidden": 403, "broken": 500, "busy": 503}


class Handler(http.server.BaseHTTPRequestHandler):
    """whole: knows Range. norange: ignores it. bad: zeros of the right length. cut: the first answer stops half
    way; cutting: each does. long and short: a wrong Content-Length. page: a web page, as from a login of a hotel.
    slow: 50 pieces. moved: sends to /whole. missing, forbidden, broken, busy: an error status."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        how, _, name = self.path.strip("/").partition("/")
        if how in ANSWERS:
            return self.send_error(ANSWERS[how])
        if how == "moved":
            self.send_response(302)
            self.send_header("Location", f"/whole/{name}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if how == "page" or name not in self.server.bodies:
            return self.send_page()
        with opened(self.server.bodies[name]) as body:
            self.send_file(how, body, body.seek(0, io.SEEK_END))

    def send_page(self):
        page = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def send_file(self, how, body, length):
        start, asked = 0, self.headers.get("Range")
        if asked and how != "norange":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= length:
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
        said = {"long": length + 1000, "short": length // 2}.get(how, length)
        self.send_header("Content-Length", str(said - start))
        self.end_headers()
        first = sum(path == self.path for path, _ in self.server.requests) == 1
        stops = how == "cutting" or (how == "cut" and first)
        self.send_bytes(how, body, start, start + (length - start) // 2 if stops else min(said, length))

    def send_bytes(self, how, body, start, end):
        step = max(1, (end - start) // 50) if how == "slow" else 1 << 20
        body.seek(start)
        while start < end:
            block = body.read(min(step, end - start))
            try:
                self.wfile.write(bytes(len(block)) if how == "bad" else block)
            except OSError:  # the client was killed
                return
            start += len(block)
            if how == "slow":
                time.sleep(0.02)

    def log_message(self, *args):
        pass


def opened(body):
    return io.BytesIO(body) if isinstance(body, bytes) else open(Path(body), "rb")


@contextmanager
def serving(bodies):
    """A running server: `.url`, `.bodies` (name -> bytes or a path), and `.requests`, (path, Range) in order."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.bodies = [], dict(bodies)
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield httpd
        httpd.shutdown()
