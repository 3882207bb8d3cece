"""A camera on the network for tests: HTTP on loopback, a JPEG after the other, as many as a connection is to get."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from clips import picture
from PIL import Image

Size = tuple[int, int]  # (H, W)


@dataclass
class Camera:
    """What each connection gets, one after the other: frames of a size and how many (None: no end). The last is for all that follow."""

    plan: list[tuple[Size, int | None]]
    fps: float = 100.0
    connections: int = 0
    address: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serve(plan: list[tuple[Size, int | None]], fps: float = 100.0) -> Iterator[Camera]:
    camera = Camera(plan, fps)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size, frames = camera.plan[min(camera.connections, len(camera.plan) - 1)]
            camera.connections += 1
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader has gone
                _send(self, camera, size, frames)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        camera.address = f"http://127.0.0.1:{server.server_port}/live"
        try:
            yield camera
        finally:
            camera.stopping.set()
            server.shutdown()
            thread.join()


def _send(handler: http.server.BaseHTTPRequestHandler, camera: Camera, size: Size, frames: int | None) -> None:
    index = 0
    while (frames is None or index < frames) and not camera.stopping.is_set():
        data = io.BytesIO()
        Image.fromarray(picture(index, size)).save(data, "JPEG")
        body = data.getvalue()
        handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n")
        handler.wfile.flush()
        index += 1
        time.sleep(1 / camera.fps)
