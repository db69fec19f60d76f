"""No proxy is asked for what runs on this machine: a Prefect or MLflow server of one's own."""

import os

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NO_PROXY = ("no_proxy", "NO_PROXY")


def spare_loopback() -> None:
    """Where a proxy is set (HTTP_PROXY and the like), have none asked for addresses of this
    machine: neither by this process, nor by those that it starts.
    """
    named = {
        name for name, value in os.environ.items() if name.lower().endswith("_proxy") and value
    }
    if not named.difference(NO_PROXY):
        return
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in listed.split(",") if host.strip()]
    if "*" in hosts:
        return
    hosts += [host for host in LOOPBACK if host not in hosts]
    # both, since some programs read but one of them
    os.environ.update(dict.fromkeys(NO_PROXY, ",".join(hosts)))
