"""Which OpenLineage server is told of audits and releases: the section `openlineage` of an audit
file, or the environment, as OpenLineage's own clients read it.
"""

import os

from pydantic import field_validator

from poisonwatch.source_config import Section
from poisonwatch.text.addresses import HIDDEN, is_web_address
from poisonwatch.text.environment import find_variables

URL_VARIABLE = "OPENLINEAGE_URL"
DISABLED_VARIABLE = "OPENLINEAGE_DISABLED"


class OpenLineageConfig(Section):
    """The OpenLineage server that is told of audits and releases; needs the extra `openlineage`."""

    url: str | None = None
    """Its address; the key is in OPENLINEAGE_API_KEY. None: that of OPENLINEAGE_URL, where it is
    set; else nobody is told. OPENLINEAGE_DISABLED=true: nobody is told.
    """

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        is_address = url is None or HIDDEN in url or is_web_address(url)
        if not is_address and not find_variables(url or ""):
            raise ValueError("url is the address of a server: give an http(s) URL, or ${NAME}")
        return url

    def find_url(self) -> str | None:
        """The address as the audit file or the environment writes it; None: nobody is told."""
        if os.environ.get(DISABLED_VARIABLE, "").lower() == "true":
            return None
        return self.url or os.environ.get(URL_VARIABLE) or None
