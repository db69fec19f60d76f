"""Names for filters."""

from pathlib import Path

import pytest
from ledgers import sqlite_ledger

from poisonwatch.errors import InputError
from poisonwatch.ledger.saved_views import list_views, remove_view, save_view


def test_a_name_stands_for_one_filter(tmp_path: Path) -> None:
    """The last one; removing it twice is no error."""
    with sqlite_ledger(tmp_path) as ledger:
        save_view(ledger, " ours ", "/rows?words=tea", "ann")
        save_view(ledger, "ours", "/triage?state=open", "bob")
        assert [(view.name, view.address) for view in list_views(ledger)] == [
            ("ours", "/triage?state=open")
        ]
        for name, address in (("", "/rows"), ("x" * 101, "/rows"), ("x", "/rows#a"), ("x", "//e")):
            with pytest.raises(InputError):
                save_view(ledger, name, address, "ann")
        remove_view(ledger, "ours")
        remove_view(ledger, "ours")
        assert list_views(ledger) == []
