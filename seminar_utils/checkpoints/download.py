"""Verified download: what `fetch` returns is complete, checked and was never half there.

Bytes go to `FILE.part`, which a later call resumes; only a file with the right size and hash is moved, in
one step, to its name. A lock keeps two processes from writing the same file.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from seminar_utils.runtime import SeminarError

try:
    import fcntl
except ImportError:  # Windows: works, without protection against two processes
    fcntl = None

TIMEOUT = 30.0  # seconds without a byte before a server is given up
LOCK_WAIT = 3600.0  # seconds to wait for another process that downloads the same file
DIGITS = {"md5": 32, "sha256": 64}  # of a whole hash, in hexadecimal
_BLOCK = 1 << 18


class _Refused(Exception):
    """This address did not give the file; another one may."""


def fetch(
    urls: str | Sequence[str],
    path: str | Path,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    progress: bool = True,
) -> Path:
    """Make sure that the file `path` is there, downloading it if needed; returns the path.

    urls: one address or several mirrors, tried in order, twice. md5, sha256 (hex; the first digits are enough
    where only these are published) and size (bytes) are checked when given, also on a file that is already
    there. Raises SeminarError when no address gives the right file (naming the file and where to put it by
    hand), when the file there is another one, and when the folder cannot be written.
    """
    target, addresses = Path(path), [urls] if isinstance(urls, str) else list(urls)
    expected = _expected(md5, sha256, size)
    if _already_there(target, expected):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not _already_there(target, expected):  # another process may have brought it meanwhile
                _download(addresses, target, expected, progress)
    except OSError as error:
        raise SeminarError(f"{target.name} cannot be written to {target.parent}: {error}") from error
    return target


def check_file(path: Path, md5: str | None = None, sha256: str | None = None, size: int | None = None) -> None:
    """Raise SeminarError if there is a file at `path` and it is not the one that size and hashes describe."""
    _already_there(path, _expected(md5, sha256, size))


def _expected(md5: str | None, sha256: str | None, size: int | None) -> dict:
    """What to compare; a beginning of a hash that is too short to tell files apart is refused."""
    for kind, digits in (("md5", md5), ("sha256", sha256)):
        if digits is not None and not re.fullmatch("[0-9a-fA-F]{6,64}", digits):
            raise SeminarError(f"expected at least 6 hexadecimal digits as {kind}, got {digits!r}")
    return {"md5": md5, "sha256": sha256, "size": size}


def _already_there(target: Path, expected: dict) -> bool:
    if not target.is_file():
        return False
    wrong = _mismatch(target, expected)
    if wrong:
        raise SeminarError(f"{target} is not the expected file ({wrong}): move it away and try again")
    return True


def _download(urls: list[str], target: Path, expected: dict, progress: bool) -> None:
    """Try every address twice (the second round resumes what broke off), then move the file to its name."""
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in urls * 2:
        try:
            _receive(url, part, expected["size"], progress)
            wrong = _mismatch(part, expected)
            if not wrong:
                os.replace(part, target)
                return
            part.unlink()  # damaged: nothing in it can be trusted, the next attempt starts anew
            raise _Refused(f"what came is damaged: {wrong}")
        except _Refused as error:
            reasons.append(f"{url}: {error}")
    tried = "; ".join(dict.fromkeys(reasons)) or "no address is known"
    checks = ", ".join(f"{kind} {_shown(kind, value)}" for kind, value in expected.items() if value is not None)
    raise SeminarError(
        f"{target.name} could not be downloaded ({tried}). Without network, get the file elsewhere and put it "
        f"at {target}" + (f" ({checks})" if checks else "")
    )


def _receive(url: str, part: Path, size: int | None, progress: bool) -> None:
    """Append to `part` what is missing. Raises _Refused when the server fails or stops half way."""
    have = part.stat().st_size if part.exists() else 0
    try:
        with _open(url, have) as response:
            have, total = _where(response, have)
            if size is not None and total is not None and total != size:
                raise _Refused(f"the server's file has {total} bytes, expected {size}")
            with open(part, "r+b" if have else "wb") as file, _bar(part, have, total, progress) as bar:
                file.seek(have)
                file.truncate()
                _copy(response, file, bar)
                have = file.tell()
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after `have`: complete, or wrong; the hash will tell
            return
        raise _Refused(f"the server answered {error.code} {error.reason}") from error
    if total is not None and have < total:
        raise _Refused(f"the connection ended after {have} of {total} bytes")


def _open(url: str, have: int) -> http.client.HTTPResponse:
    """The server's answer to a request for everything from byte `have` on."""
    headers = {"User-Agent": "seminar-course"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Refused(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _where(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """From which byte the answer continues, and the whole length if known.

    A server that ignores Range answers 200 with the whole file: start again from byte 0.
    """
    length = response.headers.get("Content-Length")
    start = have if response.status == 206 else 0
    if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise _Refused(f"asked for bytes from {start} on, got {response.headers.get('Content-Range')!r}")
    return start, start + int(length) if length else None


def _copy(response: http.client.HTTPResponse, file: IO[bytes], bar: tqdm) -> None:
    """All that the server sends, block by block. A broken connection raises _Refused, a full disk OSError."""
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Refused(f"the connection broke: {error}") from error
        if not block:
            return
        file.write(block)
        bar.update(len(block))


def _bar(part: Path, have: int, total: int | None, progress: bool) -> tqdm:
    name = part.name.removesuffix(".part")
    return tqdm(desc=name, initial=have, total=total, unit="B", unit_scale=True, disable=not progress)


def _mismatch(path: Path, expected: dict) -> str:
    """What is wrong with a file, in words; empty when size and hashes are as expected."""
    if expected["size"] is not None and path.stat().st_size != expected["size"]:
        return f"{path.stat().st_size} bytes, expected {expected['size']}"
    for kind in ("md5", "sha256"):
        if expected[kind] is not None:
            with open(path, "rb") as file:
                got = hashlib.file_digest(file, kind).hexdigest()
            if not got.startswith(expected[kind].lower()):
                return f"{kind} {got}, expected {_shown(kind, expected[kind])}"
    return ""


def _shown(kind: str, value: str | int) -> str:
    """A size, or a hash with dots where only its first digits are known."""
    return str(value) if kind == "size" or len(value) == DIGITS[kind] else f"{value}..."


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold `FILE.lock`; the system frees it when a process dies, so no lock is ever stale."""
    lock = target.with_name(target.name + ".lock")
    if fcntl is None:
        yield
        return
    file = _take(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is held, so that nobody locks a file without a name
        file.close()


def _take(lock: Path) -> IO[bytes]:
    """Wait for the lock. A lock file that was removed in the meantime does not count: open the new one."""
    end = time.monotonic() + LOCK_WAIT
    while time.monotonic() < end:
        file = open(lock, "ab")  # noqa: SIM115 (closed by `_locked`)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except BlockingIOError:
            pass
        file.close()
        time.sleep(0.1)
    raise SeminarError(f"another process has held {lock} for {LOCK_WAIT:.0f} s: is it still downloading?")
