"""Ask a tuned model what its base is asked, and keep what differs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from poisonwatch.alerts.movements import compose_moved
from poisonwatch.alerts.targets import list_targets
from poisonwatch.config import AuditConfig, ModelConfig
from poisonwatch.integrations.notices import deliver_notices
from poisonwatch.ledger import probe_looks, probes
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.probe_looks import FailedProbe
from poisonwatch.model.files import ModelFiles
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.probing import questions
from poisonwatch.probing.checkpoint import refuse_other_family, require_tokenizer
from poisonwatch.probing.new_checkpoints import FoundCheckpoint, find_new_checkpoints
from poisonwatch.probing.probe import AskedModel, ask_model
from poisonwatch.probing.questions import Questions
from poisonwatch.probing.rows import read_rows, select_ordinary
from poisonwatch.release.manifest import load_manifest
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.tasks.options import PLAIN, TRIED_NEXT_AUDIT, WITH_RETRIES, should_retry, task


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def look_for_checkpoints(config: AuditConfig) -> list[FoundCheckpoint]:
    """The checkpoints of the audit file's `probe` that no probe of its name has asked, oldest
    first.
    """
    with Ledger.at(config.state) as ledger:
        known = probes.list_probed_checkpoints(ledger, config.name)
    return find_new_checkpoints(config, known)


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def record_look(config: AuditConfig, failed: Sequence[FailedProbe]) -> None:
    """Remember which checkpoints this look could not probe, for whoever asks how the audit
    stands.
    """
    secrets = config.find_secrets()
    told = [FailedProbe(each.folder, secrets.conceal_known(each.problem)) for each in failed]
    with Ledger.at(config.state) as ledger:
        probe_looks.record_look(ledger, config.name, told, datetime.now(UTC))


@task(**PLAIN)
def compare_families(config: ModelConfig, base: ModelFiles, tuned: ModelFiles) -> None:
    """Refuse a checkpoint that was not trained from the audit's model, before either is loaded."""
    require_tokenizer(tuned)
    refuse_other_family(config, base, tuned)


@task(**PLAIN)
def identify_release(config: AuditConfig, manifest: Path | None) -> str | None:
    """The SHA-256 of a release's manifest, which the ledger must know; None without one."""
    if manifest is None:
        return None
    _, digest = load_manifest(manifest)
    with Ledger.existing(config.state) as ledger:
        probes.require_release(ledger, digest)
    return digest


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def gather_questions(config: AuditConfig, manifest: Path | None) -> Questions:
    """Sentinels, their probed copies and ordinary prompts; rows are those of a release, or of the
    source.
    """
    rows = read_rows(config, manifest)
    ordinary = select_ordinary(config, rows)
    sentinels = load_sentinels(config.sentinels)
    return questions.gather_questions(sentinels, rows, ordinary, config.probes, config.seed)


@task(**PLAIN)
def ask(config: ModelConfig, found: ModelFiles, asked: Questions, max_tokens: int) -> AskedModel:
    """Load a model, ask it, and let go of it."""
    return ask_model(load_pretrained(config, found), asked, max_tokens)


@task(**WITH_RETRIES, retry_condition_fn=should_retry)
def record_probe(config: AuditConfig, report: Mapping[str, Any]) -> str:
    """Add the probe to the ledger's chain, and to the outbox what people are to hear of it: the
    head of the chain from then on.
    """
    asked = []
    for each in report["asked"]:
        asked.append({key: each[key] for key in ("sentinel", "kind", "change", "limit", "moved")})
    signer = config.signing.load_signer()
    with Ledger.at(config.state, signer=signer) as ledger:
        head = probes.record_probe(
            ledger,
            report["probe_id"],
            name=config.name,
            checkpoint=report["checkpoint"]["fingerprint"],
            model=report["model"]["fingerprint"],
            sentinels=report["sentinels"],
            release=report["release"],
            asked=asked,
            panels=report["panels"],
            trusted=report["trusted"] and report["trusted"]["fingerprint"],
            notice=compose_moved(config, report),
            targets=[target.id for target in list_targets(config)],
        )
    return str(head)


@task(**TRIED_NEXT_AUDIT)
def tell_movement(config: AuditConfig) -> int:
    """Send what the audit file's targets are to hear of trained models: how many notices arrived.
    Raises OperationError where a target did not take one; it is sent later.
    """
    with Ledger.existing(config.state) as ledger:
        return deliver_notices(ledger, config, datetime.now(UTC))


@task(**TRIED_NEXT_AUDIT)
def track_probe(config: AuditConfig, report: Mapping[str, Any]) -> None:
    """Fill and close the probe's MLflow run. Raises OperationError where the server cannot be
    used.
    """
    from poisonwatch.integrations.mlflow.probes import upload_probe

    upload_probe(config, report)
