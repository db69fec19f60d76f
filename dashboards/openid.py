"""Logging in by an identity provider, with OpenID Connect: the way there, and the way back.

Authlib speaks the protocol (the code flow with PKCE, state and nonce). What a browser must bring
back is in a signed cookie of its own, which lasts for one login: a cookie of the login itself would
not come back from another site (SameSite=strict).
"""

import hmac
import logging
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from poisonwatch.dashboards.access import LONGEST_USER_NAME, ProviderSettings, clean_user_name
from poisonwatch.dashboards.door import Door, Person
from poisonwatch.dashboards.pages import render_page
from poisonwatch.dashboards.roles import ROLES, Role
from poisonwatch.errors import ConfigError
from poisonwatch.text.display import excerpt, get_first_line

if TYPE_CHECKING:
    from authlib.integrations.starlette_client import StarletteOAuth2App

START_PATH, BACK_PATH = "/login/openid", "/login/openid/back"
LOGIN_TAKES = 600  # seconds at most, at the provider
PROVIDER_ANSWERS = 10  # seconds
ROLE_PREFIX = "poisonwatch-"
# By a public key alone: whoever can read the dashboard's settings must not be able to sign.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
ALGORITHMS += ["ES256", "ES384", "ES512", "EdDSA"]

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The provider's answer lets nobody in; the message is for whoever tried."""


def require_openid() -> None:
    """Raises ConfigError where the extra `oidc` is not installed."""
    try:
        import authlib.integrations.starlette_client  # noqa: F401
        import httpx  # noqa: F401
    except ImportError:
        raise ConfigError(
            "logging in by an identity provider needs more packages: "
            "pip install 'poisonwatch[oidc]'"
        ) from None


def build_openid_routes(door: Door) -> list[Route]:
    """The way to the identity provider and the way back; none without one."""
    if door.access.provider is None:
        return []
    pages = _OpenIdPages(door, door.access.provider)
    return [Route(START_PATH, pages.start), Route(BACK_PATH, pages.come_back)]


class _OpenIdPages:
    """Sends browsers to the provider, and takes what they bring back."""

    def __init__(self, door: Door, provider: ProviderSettings) -> None:
        from itsdangerous import URLSafeTimedSerializer

        self._door, self._provider = door, provider
        self._cookie = f"poisonwatch-openid-{secrets.token_hex(4)}"
        self._serializer = URLSafeTimedSerializer(secrets.token_urlsafe(32))

    async def start(self, request: Request) -> Response:
        """Send the browser to the provider."""
        from poisonwatch.dashboards.login import restrict_to_local

        after = restrict_to_local(request.query_params.get("next", "/"))
        back = self._make_back_address(request)
        try:
            app = await self._load_app()
            asked = await app.create_authorization_url(back)
        except Exception as error:
            return self._refuse(request, _explain(error), 502)
        kept = {name: asked[name] for name in ("state", "nonce", "code_verifier")}
        answer = RedirectResponse(asked["url"], 303)
        answer.set_cookie(
            self._cookie,
            self._serializer.dumps({**kept, "back": back, "after": after}),
            max_age=LOGIN_TAKES,
            path=BACK_PATH,
            secure=back.startswith("https://"),
            httponly=True,
            # it must come back from the provider, which is another site
            samesite="lax",
        )
        return answer

    async def come_back(self, request: Request) -> Response:
        """Let in whom the provider sends back."""
        try:
            kept = self._read_cookie(request)
            claims = await self._fetch_claims(request, kept)
            person, user_id = self._choose_person(claims)
        except RefusedError as error:
            return self._refuse(request, str(error), 403)
        self._door.let_in(request, person, user_id)
        # A page, and no redirect: after one from another site, browsers may keep the cookie of the
        # login back, once.
        answer: Response = render_page(request, "came_back.html.j2", next=kept["after"])
        answer.delete_cookie(self._cookie, path=BACK_PATH)
        return answer

    def _read_cookie(self, request: Request) -> Mapping[str, str]:
        from itsdangerous import BadData

        try:
            kept = self._serializer.loads(
                request.cookies.get(self._cookie, ""), max_age=LOGIN_TAKES
            )
        except BadData:
            raise RefusedError(
                "This login was not begun in this browser, or too long ago: begin again."
            ) from None
        state = request.query_params.get("state", "")
        if not hmac.compare_digest(state.encode(), kept["state"].encode()):
            raise RefusedError("This answer belongs to another login: begin again.")
        found: Mapping[str, str] = kept
        return found

    async def _fetch_claims(self, request: Request, kept: Mapping[str, str]) -> Mapping[str, Any]:
        """What the provider says of whoever logged in there. Raises RefusedError."""
        refused = request.query_params.get("error")
        if refused is not None:
            raise RefusedError(f"The identity provider refused the login: {excerpt(refused)}.")
        try:
            app = await self._load_app()
            token = await app.fetch_access_token(
                redirect_uri=kept["back"],
                code=request.query_params.get("code", ""),
                code_verifier=kept["code_verifier"],
            )
            claims = await app.parse_id_token(token, nonce=kept["nonce"])
            if claims is None:
                raise RefusedError("The identity provider sent no ID token.")
            return await self._complete_claims(app, token, claims)
        except RefusedError:
            raise
        except Exception as error:
            raise RefusedError(_explain(error)) from error

    async def _complete_claims(
        self, app: "StarletteOAuth2App", token: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The claims with those that the provider gives at its userinfo endpoint alone."""
        wanted = [self._provider.user_claim, self._provider.role_claim]
        missing = [name for name in wanted if name and _find_claim(claims, name) is None]
        metadata = await app.load_server_metadata()
        if not missing or "userinfo_endpoint" not in metadata:
            return claims
        further = await app.userinfo(token=token)
        # a token could be somebody else's: the standard asks for this comparison
        if further.get("sub") != claims["sub"]:
            raise RefusedError("The identity provider speaks of two people at once.")
        return {**further, **claims}

    def _choose_person(self, claims: Mapping[str, Any]) -> tuple[Person, str | None]:
        """Whom the claims are about; with the id of the users' file, where it says what they may
        do. Raises RefusedError.
        """
        named = _find_claim(claims, self._provider.user_claim)
        name = clean_user_name(named, LONGEST_USER_NAME) if isinstance(named, str) else None
        if name is None:
            raise RefusedError(
                f"The identity provider does not say who you are: its claim "
                f"{excerpt(self._provider.user_claim)} is missing, or longer than "
                f"{LONGEST_USER_NAME} characters."
            )
        # anybody can write any address into an account of some providers
        if self._provider.user_claim == "email" and claims.get("email_verified") is not True:
            raise RefusedError("The identity provider has not verified your mail address.")
        user = self._door.find_user(name)
        if user is not None:
            return Person(user.name, user.role), user.id
        role = self._find_role(claims)
        if role is None:
            raise RefusedError(
                f"{name} may not come in: ask whoever runs the dashboard to add you as a user."
            )
        return Person(name, role), None

    def _find_role(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role that the claim of roles names; None where it names none."""
        if self._provider.role_claim is None:
            return None
        named = _find_claim(claims, self._provider.role_claim)
        given = named if isinstance(named, list) else [named]
        for role in reversed(ROLES):
            if f"{ROLE_PREFIX}{role}" in given:
                return role
        return None

    async def _load_app(self) -> "StarletteOAuth2App":
        """The provider as it describes itself now. Raises RefusedError, and what httpx does."""
        from authlib.integrations.starlette_client import OAuth

        # Made anew each time: its keys may have been changed, and logins are few.
        app: StarletteOAuth2App = OAuth().register(
            "provider",
            client_id=self._provider.client_id,
            client_secret=self._provider.client_secret,
            server_metadata_url=(
                f"{self._provider.issuer.rstrip('/')}/.well-known/openid-configuration"
            ),
            client_kwargs={
                "scope": "openid email profile",
                "code_challenge_method": "S256",
                "timeout": PROVIDER_ANSWERS,
            },
        )
        metadata = await app.load_server_metadata()
        if str(metadata.get("issuer", "")).rstrip("/") != self._provider.issuer.rstrip("/"):
            raise RefusedError("The identity provider names another issuer than the settings do.")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        # Authlib takes what is offered, and so would "none" be
        metadata["id_token_signing_alg_values_supported"] = [
            name for name in offered if name in ALGORITHMS
        ]
        return app

    def _make_back_address(self, request: Request) -> str:
        base = self._provider.address
        if base is None:
            # the gatekeeper has looked at the Host header
            base = f"{request.url.scheme}://{request.headers['host']}"
        parts = urlsplit(base)
        return f"{parts.scheme}://{parts.netloc}{BACK_PATH}"

    def _refuse(self, request: Request, why: str, status: int) -> Response:
        log.warning("a login by the identity provider failed: %s", why)
        return render_page(
            request, "error.html.j2", status, title="You could not be logged in", problem=why
        )


def _find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by its place in others, as realm_access.roles; None where there is
    none.
    """
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def _explain(error: Exception) -> str:
    """Why the provider could not be asked. Answers and addresses may hold secrets, codes among
    them: of errors that are not our own the kind alone is told.
    """
    if isinstance(error, RefusedError):
        return get_first_line(error)
    return f"The identity provider's answer could not be used ({type(error).__name__})."
