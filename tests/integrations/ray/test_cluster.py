"""Reaching a cluster: one clear error within a bounded time. A cluster itself is in test_engine."""

import builtins
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
from servers import free_port
from slow_tests import slow

from poisonwatch.errors import ConfigError, OperationError
from poisonwatch.integrations.ray.cluster import check_reachable, require_ray


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compute: ray` needs the extra."""
    imported = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("ray"):
            raise ImportError(name)
        return imported(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'poisonwatch\[ray\]'"):
        require_ray()


def test_a_port_where_nobody_listens_is_said() -> None:
    """At once, with what to do."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(OperationError, match=rf"no Ray cluster answers .*{address}"):
        check_reachable(address)


def test_a_server_that_is_no_cluster_is_given_up() -> None:
    """Ray itself would ask it again and again, without end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OperationError, match="no Ray cluster answers within 2 seconds"):
            check_reachable(address, seconds=2)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "http://head"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """Nothing is asked."""
    with pytest.raises(ConfigError, match="write auto, or HOST:PORT"):
        check_reachable(address)


@slow
def test_the_audit_does_not_wait_for_ray_unless_it_is_wanted() -> None:
    """Ray takes seconds to import; usage reports are off before it is."""
    code = (
        "import os, sys; import poisonwatch.flows.audit; assert 'ray' not in sys.modules; "
        "assert os.environ['RAY_USAGE_STATS_ENABLED'] == '0'"
    )
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
