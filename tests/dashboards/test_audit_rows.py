"""All rows of an audit, and two audits side by side, as pages."""

import re

from browsing import audit_page
from starlette.testclient import TestClient


def test_all_rows_of_an_audit_are_listed_strongest_first(client: TestClient) -> None:
    """With a line for each file; those that were flagged say so."""
    page = client.get(f"{audit_page(client)}/rows").text
    scores = [float(x) for x in re.findall(r'data-label="score">(-?[0-9.]+)<', page)]
    assert len(scores) == 43
    assert scores == sorted(scores, reverse=True)
    assert 'class="tag strong">flagged<' in page
    assert '<td class="number" data-label="rows">43</td>' in page
    assert client.get(f"{audit_page(client)}/rows?source=nothing").status_code == 200


def test_an_audit_is_compared_with_itself_where_there_is_no_other(client: TestClient) -> None:
    """Nothing is new; one that is not there is an error."""
    address = audit_page(client)
    same = client.get(f"{address}/compare", params={"with": address.rpartition("/")[2]}).text
    assert re.findall(r"<dt>flagged now</dt><dd>0</dd>", same)
    assert client.get(f"{address}/compare?with=none").status_code == 404
