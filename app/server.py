"""The page's server: Gradio's, with the live route, health, metrics and model cards on it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

import gradio as gr
from gradio.utils import LRUCache
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

import sketch_core
from app import logs
from app.cards import card_routes
from app.connections import harden
from app.guard import Guard, Understandable
from app.limits import LOCAL_HOSTS, Door, Turnstile
from app.live import MAX_MESSAGE, live_route
from app.memory import give_back_until
from app.metrics import Metrics, metrics_route
from app.middleware import FirstScript
from app.page import FIRST, THEME, build, head
from app.settings import Settings
from app.sharing import share_routes
from app.studio import Studio

log = logging.getLogger(__name__)

MAX_BODY = 262_144
SESSIONS = 300
"""Visitors of whom Gradio remembers anything; 10,000 are its own choice, at some 100 kB each."""
SWITCH_SECONDS = 0.0005
"""How long one thread may hold up another (Python's 5 ms otherwise): a sampling step lets go of the lock often."""
# Ten seconds are what Docker gives before it kills; these make less together.
DRAIN_SECONDS = 4.0
"""How long a stop waits for answers that are on their way."""
HANG_UP_SECONDS = 1
"""How long connections may then take to close."""
STOP_SECONDS = 7.0
"""After which the process ends, whatever still holds it."""
DELIVERY_SECONDS = 0.2
"""What the last answers may take from Gradio's queue to the socket."""


class Server:
    """A page that is served: its Gradio page, its door, and how it is stopped."""

    def __init__(self, studio: Studio, page: gr.Blocks, door: Door) -> None:
        self.studio, self.page, self.door = studio, page, door
        self._closed = threading.Event()
        give_back_until(self._closed)

    @property
    def url(self) -> str:
        return self.page.local_url.rstrip("/")

    @property
    def in_flight(self) -> int:
        """Requests that somebody waits for."""
        queue = self.page._queue  # Gradio tells nobody else how many it holds
        queued = len(queue) + sum(len(job) for job in queue.active_jobs if job)
        return max(self.studio.in_flight, self.door.answering, queued)

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing new, answer what is in flight for so many seconds at most, and close."""
        self._closed.set()
        began, asked = time.perf_counter(), self.in_flight
        log.info("Stopping.", extra=logs.fields(in_flight=asked))
        self.studio.ready = False
        self.page.server.servers[0].get_loop().call_soon_threadsafe(self.door.close)
        while self.in_flight and time.perf_counter() - began < seconds:
            time.sleep(0.02)
        left = self.in_flight
        time.sleep(DELIVERY_SECONDS if asked else 0)
        self.page.close(verbose=False)
        self.studio.close(finish=not left)
        log.info("Stopped.", extra=logs.fields(seconds=round(time.perf_counter() - began, 2), unanswered=left))


def health_route(studio: Studio) -> Route:
    """``/health``: whether it is alive and ready, for whoever looks after the server."""

    async def health(request: HttpRequest) -> JSONResponse:
        return JSONResponse(
            {"alive": True, "ready": studio.ready, "model": studio.sketcher.name, "version": sketch_core.__version__},
            status_code=200 if studio.ready else 503,
        )

    return Route("/health", health)


def launch(studio: Studio, settings: Settings | None = None) -> Server:
    """Start the page's server in threads of its own.

    Raises:
        OSError: the address cannot be listened on.
    """
    settings = settings or Settings()
    sys.setswitchinterval(SWITCH_SECONDS)
    door = Door(settings.users, settings.requests_per_minute)
    metrics = Metrics(studio, door)

    def ended(do: str, outcome: str, seconds: float, first: float | None) -> None:
        metrics.ended(do, outcome, seconds, first)
        if log.isEnabledFor(logging.DEBUG):
            shown = {"first": round(first, 4)} if first is not None else {}
            log.debug("Request.", extra=logs.fields(do=do, outcome=outcome, seconds=round(seconds, 4), **shown))

    def refused(do: str, outcome: str) -> None:
        metrics.refused(do, outcome)
        log.debug("Refused.", extra=logs.fields(outcome=outcome))

    studio.on_end, door.refused = ended, refused
    studio.warm()
    page, i18n = build(studio)
    page.queue(max_size=64)
    middleware = [
        # Gradio answers before launch() comes back, and all around it Guard can stand only then.
        Middleware(Guard, root_path=settings.root_path, local_only=_local_only(settings)),
        Middleware(Turnstile, door=door),
        Middleware(FirstScript, script=FIRST),
        Middleware(Understandable, root_path=settings.root_path),
    ]
    routes = [
        live_route(studio, door),
        health_route(studio),
        *metrics_route(metrics, settings.metrics),
        *card_routes(studio),
        *share_routes(),
    ]
    # uvicorn would trust every proxy on this machine, and Gradio hands on nothing but this variable.
    os.environ["FORWARDED_ALLOW_IPS"] = settings.trusted_proxies
    try:
        page.launch(
            server_name=settings.host,
            server_port=settings.port,
            root_path=settings.root_path,
            share=settings.share,
            quiet=settings.log_format == "json",
            prevent_thread_lock=True,
            i18n=i18n,
            theme=THEME,
            head=head(studio),
            footer_links=["api"],
            run_history=False,
            mcp_server=settings.mcp,
            state_session_capacity=SESSIONS,
            enable_monitoring=False,
            ssr_mode=False,  # on Spaces Node would stand in front, which knows nothing of the live route
            app_kwargs={"max_body_size": MAX_BODY, "middleware": middleware, "routes": routes},
        )
    except OSError as error:
        raise OSError(f"Cannot listen on {settings.host}:{settings.port}; is the port taken?") from error
    logs.take_over_gradio()
    logs.take_over_uvicorn()
    _guard(page, settings)
    # Points are few bytes, and deflating them costs as much as a tenth of the drawing.
    page.server.config.ws_per_message_deflate = False
    page.server.config.timeout_graceful_shutdown = HANG_UP_SECONDS
    server = Server(studio, page, door)
    shared = {"shared": page.share_url} if page.share_url else {}
    log.info("Listening.", extra=logs.fields(url=server.url, model=studio.sketcher.name, **shared))
    return server


def _local_only(settings: Settings) -> bool:
    """Whether nobody but this machine is to be served: no other name can then be meant for it."""
    here = settings.host.strip("[]") in LOCAL_HOSTS - {"0.0.0.0"}
    return here and not settings.share and not settings.trusted_proxies


def _guard(page: gr.Blocks, settings: Settings) -> None:
    """Bounds and rules that Gradio has no setting for."""
    # Around all of Starlette's and Gradio's middleware, which Gradio builds by itself.
    page.app.middleware_stack = Guard(page.app.middleware_stack, settings.root_path, local_only=_local_only(settings))
    # Of whoever asks and never fetches the answer.
    page._queue.pending_messages_per_session.max_size = SESSIONS
    page._queue.pending_event_ids_session = LRUCache(SESSIONS)
    harden(page.server.config, 4 * MAX_MESSAGE)  # characters are four bytes at most


class StopSignal:
    """SIGTERM or Ctrl-C: asks once for a stop, and a second time for one at once."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.serving = False
        """Whether somebody will heed ``asked``; before that, the program just ends."""
        # A shell without job control starts what it sends to the background deaf to Ctrl-C; so it stays.
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self)

    def __call__(self, *_: object) -> None:
        if self.asked.is_set():
            os._exit(1)
        self.asked.set()
        last = threading.Timer(STOP_SECONDS, _end_at_once)
        last.daemon = True
        last.start()
        if not self.serving:
            raise SystemExit(0)

    def wait(self) -> None:
        """Until a stop is asked for."""
        while not self.asked.wait(0.5):  # without a time Windows would not hear Ctrl-C
            pass


def serve(studio: Studio, settings: Settings, stop: StopSignal) -> None:
    """Serve the page until told to stop, then answer what is in flight.

    Raises:
        OSError: the address cannot be listened on.
    """
    stop.serving = True  # it answers before launch() returns
    server = launch(studio, settings)
    stop.wait()
    server.close()


def _end_at_once() -> None:
    log.warning("Something did not stop in time.")
    os._exit(0)
