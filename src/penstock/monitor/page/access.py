"""The rules of access: the name of the host, the origin of a request, a token and the client's user."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.monitor.page.peer import is_loopback, peer_uid
from penstock.monitor.page.request import BadRequest

if TYPE_CHECKING:
    import socket

    from penstock.monitor.page.request import PageRequest

__all__ = ["PageAccess"]

AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class PageAccess:
    """The rules of access to a page that listens on `host`. `token` None: none is asked for, on loopback alone.

    `names` are further names of the host. A name of a foreign domain may be made to mean this machine (DNS rebinding),
    so names count only if they are listed here.
    """

    host: str
    port: int
    token: str | None = None
    names: tuple[str, ...] = ()

    @property
    def cookie_name(self) -> str:
        """The name of the login's cookie; browsers send a cookie to all ports of a host."""
        return f"penstock_{self.port}"

    def session(self) -> str:
        """Return the value of the login's cookie: a digest of the token, which stays valid for a next page process."""
        return hmac.new((self.token or "").encode(), b"penstock monitor page", hashlib.sha256).hexdigest()

    def check_host(self, request: PageRequest) -> None:
        """Raise BadRequest for a Host that is not this page's, and for a foreign Origin."""
        host = request.headers.get("host", "")
        found = AUTHORITY.fullmatch(host)
        if found is None or not self._is_own_name(found[1].lower()):
            raise BadRequest(403, "this Host is not the page's: open it by its address, or allow the name")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise BadRequest(403, "a request from a foreign origin")

    def check_same_site(self, request: PageRequest) -> None:
        """Raise BadRequest for a request that another page has made. A POST needs the Origin of this page."""
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise BadRequest(403, "a request from another page")
        if request.method == "POST" and "origin" not in request.headers and not self._has_bearer(request):
            raise BadRequest(403, "a POST without an Origin")

    def check_token(self, request: PageRequest) -> None:
        """Raise BadRequest without the token, if one is asked for."""
        if self.token is None or self._has_bearer(request):
            return
        if not hmac.compare_digest(request.cookie(self.cookie_name).encode(), self.session().encode()):
            raise BadRequest(401, "a token is needed")

    def is_token(self, text: str) -> bool:
        """Return whether the text is the token, in a time that does not depend on its letters."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def check_user(self, sock: socket.socket) -> None:
        """Raise BadRequest if another user of this machine has connected, and the page has no token."""
        if self.token is None and peer_uid(sock) not in (0, os.geteuid()):
            raise BadRequest(403, "this page is another user's: start it with a token to share it")

    def _has_bearer(self, request: PageRequest) -> bool:
        given = request.headers.get("authorization", "")
        return given[: len(BEARER)].lower() == BEARER and self.is_token(given[len(BEARER) :].strip())

    def _is_own_name(self, name: str) -> bool:
        if name in self.names or is_loopback(name):
            return True
        return not is_loopback(self.host) and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
