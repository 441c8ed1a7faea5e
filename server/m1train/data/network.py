"""By which way a download goes, for the sentence when it fails: the proxy is the daemon's affair, not the shell's."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError
from urllib.parse import urlsplit

PROXY_HINT = "if a proxy is needed, start the daemon with https_proxy set (your shell's own does not count)"


def reason(url: str, error: Exception) -> str:
    """Say why a download failed, and by which way it was tried; what a server answered came all the way.

    The environment that counts is this process's: what of the daemon's reaches it.
    """
    why = getattr(error, "reason", None) or error
    said = str(getattr(why, "strerror", None) or why)
    if isinstance(error, HTTPError):
        return f"{error.code} {said}"
    return f"{said}; {way(url)}"


def way(url: str) -> str:
    """Say by which proxy an address is asked for, without the proxy's password."""
    address = urlsplit(url)
    proxy = urllib.request.getproxies().get(address.scheme)
    if not proxy or (address.hostname and urllib.request.proxy_bypass(address.hostname)):
        return "tried without a proxy, for the daemon's environment names none"
    host = urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    return f"tried by the proxy {host} of the daemon's environment"
