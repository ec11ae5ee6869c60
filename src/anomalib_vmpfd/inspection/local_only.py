# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What keeps the page to this machine: browsers load nothing from elsewhere, and no other site can ask for it."""

from typing import Any

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


class ContentSecurityPolicy:
    """Adds the policy to every answer.

    Args:
        app (Any): The ASGI application.
    """

    def __init__(self, app: Any) -> None:  # noqa: ANN401
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Answer a request."""

        async def sent(message: Any) -> None:  # noqa: ANN401
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, sent)


def middleware(host: str) -> list[Any]:
    """Middleware of a server: where it listens on this machine alone, requests under another name are refused.

    Args:
        host (str): Address that it listens at.

    Returns:
        list[Any]: For FastAPI.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    trusted = [Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)] if host in LOOPBACK else []
    return [Middleware(ContentSecurityPolicy), *trusted]
