"""A few pages behind the door of a dashboard, and browsers in front of it."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from poisonwatch.dashboards.access import PROXY_SECRET_HEADER, Access
from poisonwatch.dashboards.account import build_account_routes
from poisonwatch.dashboards.app import show_mistake
from poisonwatch.dashboards.door import Door
from poisonwatch.dashboards.gatekeeper import build_middleware
from poisonwatch.dashboards.login import build_login_routes
from poisonwatch.dashboards.openid import build_openid_routes
from poisonwatch.dashboards.pages import render_page
from poisonwatch.dashboards.roles import Role
from poisonwatch.dashboards.users import change_users, fold_name, make_user
from poisonwatch.errors import InputError

ROW = "the text of a row that nobody outside may read"
PASSWORD = "correct horse ü"
PROXY_SECRET = "5f0c8a7d0e1b4c3f9a6d2e8b7c1f0a4d"
OWN = {"Sec-Fetch-Site": "same-origin"}
FROM_PROXY = {PROXY_SECRET_HEADER: PROXY_SECRET}
HERE = "http://localhost:8600"
LOCAL = Access(user="ann")
SHARED = Access(user="root", password=PASSWORD)
PROXIED = Access(
    user="root",
    proxy_header="Remote-User",
    proxy_secret=PROXY_SECRET,
    proxies=("127.0.0.1", "10.1.0.0/24"),
)


async def show_rows(request: Request) -> Response:
    told = ("user", "role", "read_only", "may_leave")
    return JSONResponse({"rows": ROW, **{key: getattr(request.state, key) for key in told}})


async def show_who(request: Request) -> Response:
    return render_page(request, "base.html.j2")


async def decide(request: Request) -> Response:
    return PlainTextResponse(f"decided by {request.state.user}")


async def show_report(request: Request) -> Response:
    return HTMLResponse(
        ROW,
        headers={
            "Content-Security-Policy": "default-src 'none'; img-src data:",
            "Cache-Control": "public",
        },
    )


async def show_style(request: Request) -> Response:
    return PlainTextResponse("body {}", headers={"Cache-Control": "max-age=60"})


async def fail(request: Request) -> Response:
    raise RuntimeError(ROW)


async def refuse(request: Request) -> Response:
    raise HTTPException(404)


async def listen(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(ROW)


def make_pages(door: Door) -> Starlette:
    """A dashboard of pages that hold a row, behind its door."""
    return Starlette(
        routes=[
            Route("/", show_rows),
            Route("/rows", show_rows),
            Route("/who", show_who),
            Route("/report", show_report),
            Route("/broken", fail),
            Route("/static/style.css", show_style),
            Route("/triage/decide", decide, methods=["POST", "DELETE"]),
            Route("/sentinels/edit/0", decide, methods=["GET", "POST"]),
            Route("/release/files.zip", show_rows),
            Route("/release/manifest.json", show_rows),
            Route("/explain", decide, methods=["GET", "POST"]),
            Route("/unheard-of", decide, methods=["POST"]),
            WebSocketRoute("/listen", listen),
            *build_account_routes(door),
            *build_login_routes(door),
            *build_openid_routes(door),
        ],
        middleware=build_middleware(door),
        exception_handlers={InputError: show_mistake},
    )


def open_browser(
    access: Access | Door, peer: str = "127.0.0.1", address: str = HERE, **settings: Any
) -> TestClient:
    """A browser in front of the pages, connected from `peer`. Where nobody logs in, it has opened
    the link that was printed.
    """
    door = access if isinstance(access, Door) else Door(access)
    browser = TestClient(
        make_pages(door),
        base_url=address,
        client=(peer, 50000),
        follow_redirects=False,
        **settings,
    )
    if door.access.is_local:
        assert browser.get("/", params={"token": door.entrance.token}).status_code == 303
    return browser


def log_in(browser: TestClient, **form: str) -> Any:
    """What the login says to a name and a password."""
    return browser.post("/login", data={"name": "Ann", "password": PASSWORD, **form}, headers=OWN)


def open_logged_in(
    access: Access | Door = SHARED, name: str = "Ann", address: str = HERE
) -> TestClient:
    """A browser in which somebody has logged in."""
    browser = open_browser(access, address=address)
    assert log_in(browser, name=name).status_code == 303
    return browser


def with_users(folder: Path, **roles: Role) -> Access:
    """An access by a file of users, all with the same password."""
    path = folder / "users.json"
    with change_users(path) as users:
        for name, role in roles.items():
            users[fold_name(name)] = make_user(name, role, PASSWORD)
    return Access(user="root", users=path)
