"""A release in a bill of materials for machine learning (CycloneDX 1.6): its files, by SHA-256, and
the models that its rows were audited with.
"""

import json
from typing import Any

from poisonwatch.provenance.subject import Subject


def list_materials(subject: Subject) -> dict[str, Any]:
    """The bill of materials, as JSON."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    release = Component(
        name=subject.name,
        type=ComponentType.DATA,
        bom_ref=f"release-{subject.digest}",
        version=subject.digest[:12],
        description=f"{subject.rows} cleared rows for fine-tuning",
        hashes=[_hash(subject.digest)],
        properties=[
            Property(name=f"poisonwatch:{name}", value=str(count))
            for name, count in subject.counts.items()
        ],
    )
    bom = Bom()
    bom.metadata.component = release
    tool = Component(name="poisonwatch", type=ComponentType.APPLICATION, version=subject.version)
    bom.metadata.tools.components.add(tool)
    parts = []
    for file in subject.manifest.files:
        described = Component(
            name=file.name,
            type=ComponentType.FILE,
            bom_ref=f"file-{file.name}",
            hashes=[_hash(file.sha256)],
            properties=[Property(name="poisonwatch:rows", value=str(file.rows))],
        )
        parts.append(described)
    for model in sorted({audit.model for audit in subject.manifest.audits.values()}):
        described = Component(
            name="audited with",
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"model-{model}",
            version=model[:12],
            properties=[Property(name="poisonwatch:fingerprint", value=model)],
        )
        parts.append(described)
    bom.components.update(parts)
    bom.register_dependency(release, parts)
    written: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return written


def _hash(digest: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
