"""A headless Chromium, driven through its DevTools protocol: as much of it as a test of a page takes."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE = 60.0  # seconds: a busy machine is no failure


class Tab:
    """One page. errors: what scripts threw and what the page's own policy kept it from."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self.errors: list[str] = []
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never: {condition}; {self.errors}"
            time.sleep(0.02)

    def choose(self, selector: str, *files: Path) -> None:
        """As if a person had chosen files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """What is to be seen now, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _note(self, message: dict[str, Any]) -> None:
        said = SimpleNamespace(**message.get("params", {}))
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(said.exceptionDetails["text"])
        elif message.get("method") == "Log.entryAdded" and said.entry["source"] in ("security", "javascript"):
            self.errors.append(said.entry["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requested.append(said.request["url"])


@contextmanager
def browsing(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    from websockets.sync.client import connect

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(profile, process)
        with connect(f"ws://127.0.0.1:{port}{_path(port)}", max_size=None, proxy=None, open_timeout=PATIENCE) as socket:
            tab = Tab(socket)
            yield tab
            tab.call("Browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def _port(profile: Path, process: "subprocess.Popen[bytes]") -> int:
    file = profile / "DevToolsActivePort"
    assert until(lambda: file.exists() and file.read_text().count("\n") > 0, process), "the browser ended"
    return int(file.read_text().split("\n")[0])


def _path(port: int) -> str:
    """Of the first tab."""
    import http.client

    end = time.monotonic() + PATIENCE
    while True:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        asked.request("GET", "/json/list")
        tabs = [tab for tab in json.loads(asked.getresponse().read()) if tab["type"] == "page"]
        asked.close()
        if tabs:
            address: str = tabs[0]["webSocketDebuggerUrl"]
            return address.partition(f":{port}")[2]
        assert time.monotonic() < end, "the browser opens no tab"
        time.sleep(0.02)
