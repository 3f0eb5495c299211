"""Which connections a request takes: straight ones, or a proxy's, as the environment says."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from urllib3 import PoolManager, ProxyManager, make_headers
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import LocationValueError
from urllib3.util import parse_url

from ..errors import UsageError
from .pace import Pace
from .target import Target


class Routes:
    """Connection pools that keep a pace, straight and by proxy."""

    def __init__(self, pace: Pace, **options: Any) -> None:
        """`options` are those of urllib3's pools."""
        self._pace = pace
        self._straight = self._equip(PoolManager(**options))
        self._by_scheme: dict[str, PoolManager] = {}
        proxies = getproxies()
        for scheme in ("http", "https"):
            if proxy := proxies.get(scheme) or proxies.get("all"):
                self._by_scheme[scheme] = self._equip(_proxy_manager(scheme, proxy, options))

    def manager(self, target: Target) -> PoolManager:
        """The pools for a request."""
        proxied = self._by_scheme.get(target.scheme)
        if proxied is None or proxy_bypass(target.host.strip("[]")):
            return self._straight
        return proxied

    def close(self) -> None:
        """Close idle connections."""
        for manager in (self._straight, *self._by_scheme.values()):
            manager.clear()

    def _equip(self, manager: PoolManager) -> PoolManager:
        pools: dict[str, Any] = {
            "http": lambda *args, **options: self._pace.equip(HTTPConnectionPool(*args, **options)),
            "https": lambda *args, **options: self._pace.equip(HTTPSConnectionPool(*args, **options)),
        }
        manager.pool_classes_by_scheme = pools
        return manager


def _proxy_manager(scheme: str, proxy: str, options: dict[str, Any]) -> ProxyManager:
    try:
        url = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = make_headers(proxy_basic_auth=unquote(url.auth)) if url.auth else None
        return ProxyManager(url._replace(auth=None).url, proxy_headers=headers, **options)
    except (LocationValueError, ValueError):
        kind = proxy.partition("://")[0] if "://" in proxy else "it"
        raise UsageError(
            f"the {scheme} proxy of the environment cannot be used ({kind}); expected http://HOST:PORT or "
            "https://HOST:PORT, or NO_PROXY to go without"
        ) from None
