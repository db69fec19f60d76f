"""A release as Croissant metadata (MLCommons), with where it came from in the terms of W3C PROV."""

from datetime import datetime
from pathlib import Path
from typing import Any

from poisonwatch.provenance.subject import Subject

PROV = "http://www.w3.org/ns/prov#"
FORMATS = {".jsonl": "application/jsonlines", ".parquet": "application/vnd.apache.parquet"}
ABOUT = (
    "Rows for fine-tuning that audits and people cleared: {rows} rows. Each is in manifest.json, "
    "with its SHA-256, its source, and what cleared it."
)


def describe_release(subject: Subject) -> dict[str, Any]:
    """The Croissant JSON-LD of a release, whose files are named relative to its folder."""
    import mlcroissant

    files = []
    for file in subject.manifest.files:
        described = mlcroissant.FileObject(
            id=file.name,
            name=file.name,
            content_url=file.name,
            encoding_formats=[FORMATS[Path(file.name).suffix]],
            sha256=file.sha256,
        )
        files.append(described)
    metadata = mlcroissant.Metadata(
        name=subject.name,
        description=ABOUT.format(rows=subject.rows),
        date_published=datetime.fromisoformat(subject.created),
        # Croissant asks for three numbers: the manifest's digest is what tells releases apart.
        version=f"1.0.0+{subject.digest[:12]}",
        url=f"urn:sha256:{subject.digest}",
        distribution=files,
    )
    described = dict(metadata.to_json())
    described["@context"] = {**described["@context"], "prov": PROV}
    return {**described, **_describe_origin(subject)}


def _describe_origin(subject: Subject) -> dict[str, Any]:
    """What the release was made of, how, and by whom."""
    sources = []
    for step in subject.lineage.list("source"):
        sources.append({"@type": "prov:Entity", "prov:label": step.name, "prov:value": step.words})
    audits = []
    for step in subject.lineage.list("audit"):
        started = {"prov:label": f"audit {step.name}", "prov:startedAtTime": step.at}
        audits.append({"@type": "prov:Activity", **started})
    authors = {
        author for step in subject.lineage.list("decision") for author in step.facts["authors"]
    }
    agents = [{"@type": "prov:SoftwareAgent", "prov:label": f"Poisonwatch {subject.version}"}]
    agents += [{"@type": "prov:Person", "prov:label": author} for author in sorted(authors)]
    return {
        "prov:wasDerivedFrom": sources,
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": f"release {subject.digest}",
            "prov:endedAtTime": subject.created,
            "prov:wasInformedBy": audits,
            "prov:wasAssociatedWith": agents,
        },
    }
