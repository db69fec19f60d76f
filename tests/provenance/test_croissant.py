"""Croissant that its own library reads, with where the rows came from."""

import mlcroissant

from poisonwatch.provenance.croissant import describe_release
from poisonwatch.provenance.subject import Subject


def test_a_release_is_described_as_its_library_reads_it(subject: Subject) -> None:
    """Without errors; each file by its SHA-256, sources, audits and people by PROV's terms."""
    described = describe_release(subject)
    dataset = mlcroissant.Dataset(jsonld=described)
    assert not dataset.metadata.ctx.issues.errors
    (file,) = dataset.metadata.distribution
    assert (file.name, file.sha256) == ("clean.jsonl", subject.manifest.files[0].sha256)
    sources = [entity["prov:label"] for entity in described["prov:wasDerivedFrom"]]
    assert sources == ["pairs.jsonl", "rows.jsonl"]
    made = described["prov:wasGeneratedBy"]
    assert made["prov:wasInformedBy"][0]["prov:label"] == "audit c0ffee"
    assert made["prov:wasAssociatedWith"][1] == {"@type": "prov:Person", "prov:label": "<b>ann</b>"}
    assert described["@context"]["prov"] == "http://www.w3.org/ns/prov#"
