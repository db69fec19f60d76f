"""A bill of materials that CycloneDX's own schema takes."""

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from poisonwatch.provenance.bom import list_materials
from poisonwatch.provenance.subject import Subject


def test_files_and_models_are_listed_by_their_digests(subject: Subject) -> None:
    found = list_materials(subject)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None
    by_kind = {part["type"]: part for part in found["components"]}
    assert by_kind["file"]["hashes"][0]["content"] == subject.manifest.files[0].sha256
    assert by_kind["machine-learning-model"]["properties"][0]["value"] == "a" * 64
    release = found["metadata"]["component"]
    assert (release["type"], release["hashes"][0]["content"]) == ("data", subject.digest)
    (depends,) = [each for each in found["dependencies"] if each["ref"] == release["bom-ref"]]
    assert len(depends["dependsOn"]) == 2
