"""A real Chromium without a window, driven through its own DevTools protocol: a real mouse does what is done.

The protocol is a web socket that takes JSON, see https://chromedevtools.github.io/devtools-protocol. That needs no
driver package, and any Chromium, Chrome or Edge on the PATH will do.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import websocket

from seminar_utils.teaching.kernels import kill_tree

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
QUIET = ("background-networking", "component-update", "default-apps", "extensions", "sync", "gpu", "dev-shm-usage")
START_SECONDS, ANSWER_SECONDS = 60, 60
SHIFT = 8  # as `modifiers` of a mouse event


def find_chromium() -> str | None:
    """The program of the first browser of Chromium's family on the PATH, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(folder: Path, width: int = 1200, height: int = 1000) -> Iterator["Page"]:
    """A page of a fresh Chromium that keeps all it writes in `folder`; it ends with the block."""
    flags = [f"--disable-{name}" for name in QUIET]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses root with it
    command = [
        find_chromium(),
        "--headless=new",
        "--remote-debugging-port=0",
        "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}",
        *flags,
        "about:blank",
    ]
    with open(folder / "chromium.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    family = psutil.Process(process.pid)
    try:
        page = Page(_address_of_the_page(folder, process))
        page.send("Page.enable")
        page.send(
            "Emulation.setFocusEmulationEnabled", enabled=True
        )  # JupyterLab acts on the tab that has the focus
        yield page
    finally:
        kill_tree(family)


def _address_of_the_page(folder: Path, process: subprocess.Popen) -> str:
    """The web socket of the one open page. Chromium writes its port into its profile once it listens."""
    told, deadline = folder / "profile" / "DevToolsActivePort", time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        if told.exists() and (lines := told.read_text().split()):
            with opener.open(f"http://127.0.0.1:{lines[0]}/json/list", timeout=20) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise RuntimeError("Chromium did not start:\n" + (folder / "chromium.log").read_text()[-3000:])


class Page:
    """One page: `value` asks it for JavaScript, the rest does what a person does."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(
            address, timeout=ANSWER_SECONDS, suppress_origin=True, http_no_proxy=["*"]
        )
        self.count = 0

    def send(self, method: str, **params: Any) -> dict:
        """One command of the protocol and its result; what the browser tells in between is passed over."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            said = json.loads(self.socket.recv())
            if said.get("id") == self.count:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]

    def value(self, script: str) -> Any:
        """What a JavaScript expression (or its promise) comes to."""
        said = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression once it is true. Fails with what the page showed."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(script)):
            shown = "" if time.monotonic() < deadline else self.value("document.body.innerText")
            assert time.monotonic() < deadline, f"waited {seconds} s for {script}; the page:\n{shown[-2000:]}"
            time.sleep(0.05)
        return found

    def mouse(self, kind: str, x: float, y: float, button: str = "left", modifiers: int = 0) -> None:
        """kind: mousePressed, mouseMoved or mouseReleased, at a place of the window."""
        held = {"left": 1, "right": 2}[button] if kind != "mouseReleased" else 0
        place = {"x": x, "y": y, "button": button, "buttons": held, "modifiers": modifiers}
        self.send("Input.dispatchMouseEvent", type=kind, clickCount=1, **place)

    def press_and_move(self, start: tuple[float, float], end: tuple[float, float], steps: int = 6) -> None:
        """Half a drag: the left button stays down at `end`."""
        self.mouse("mousePressed", *start)
        for step in range(1, steps + 1):
            self.mouse("mouseMoved", *(a + (b - a) * step / steps for a, b in zip(start, end)))

    def click(self, x: float, y: float, button: str = "left", modifiers: int = 0) -> None:
        """Press and release."""
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button, modifiers)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
