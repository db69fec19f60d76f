"""`poisonwatch provenance`: the documents that travel with a release.

The docstring of a command is its help: what it does, and an example that runs.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def provenance(
    config: Annotated[Path, Parameter(help="The audit file (YAML), whose ledger is asked.")],
    manifest: Annotated[Path, Parameter(help="The manifest.json of a release.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="A new folder, outside of the release's.")],
    openlineage: Annotated[
        str | None,
        Parameter(
            help="Tell this OpenLineage server of the audits and the release, too, with the key in "
            "OPENLINEAGE_API_KEY."
        ),
    ] = None,
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Write where a release came from, and what was done to it, in formats that others read.

    Croissant with PROV terms (`croissant.json`), a CycloneDX bill of materials (`bom.cdx.json`),
    and a table beside OWASP, MITRE ATLAS, NIST and the EU AI Act (`controls.json`, and
    `controls.html` for people), which claims no compliance.

    Example: `poisonwatch provenance my-audit/audit.yaml cleared/manifest.json --out provenance`
    """
    from json import dumps

    from poisonwatch.config_file import load_config
    from poisonwatch.errors import InputError
    from poisonwatch.ledger.read_only import open_to_read
    from poisonwatch.provenance.documents import write_documents
    from poisonwatch.provenance.subject import read_subject

    if out.resolve().is_relative_to(manifest.resolve().parent):
        raise InputError("--out lies in the release's folder, where a trainer would read it")
    settings = load_config(config)
    with open_to_read(settings.state) as ledger:
        subject = read_subject(ledger, settings.name, manifest)
    written = write_documents(subject, out)
    if openlineage is not None:
        from poisonwatch.provenance.openlineage import build_events, send_events

        send_events(build_events(subject), openlineage)
    if json:
        print(dumps({"release": subject.digest, "files": [str(path) for path in written]}))
        return
    for path in written:
        print(path)
