"""What was done to the rows of a release, beside what catalogues of risks and rules ask for.

A row of the table says what a catalogue asks, what Poisonwatch did about it here, and where the
evidence is. It claims no compliance: what is not covered is said to be so. Sources, read in
November 2026: OWASP Top 10 for LLM Applications 2026; OWASP AISVS 1.0 (draft of its chapter C1);
MITRE ATLAS; NIST AI 100-2 E2025; Regulation (EU) 2024/1689.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from poisonwatch.provenance.subject import Subject
from poisonwatch.text.words import plural


@dataclass(frozen=True, slots=True)
class Control:
    """What a catalogue asks (`asks`, in our words), under which number, and its address."""

    catalogue: str
    number: str
    asks: str
    url: str
    covered: bool
    say: Callable[[Subject], str]
    evidence: tuple[str, ...] = ()

    def record(self, subject: Subject) -> dict[str, Any]:
        """As JSON, for one release."""
        fields = asdict(self)
        del fields["say"]
        return {**fields, "evidence": list(self.evidence), "done": self.say(subject)}


def list_controls(subject: Subject) -> list[dict[str, Any]]:
    """The table for a release, as JSON."""
    return [control.record(subject) for control in CONTROLS]


def _say_audits(subject: Subject) -> str:
    audits, held = subject.lineage.list("audit"), subject.counts.get("quarantined", 0)
    return (
        f"{plural(len(audits), 'audit')} measured what training on each row would push; held back: "
        f"{held:,} of {plural(subject.counts.get('in', 0), 'row')}"
    )


def _say_repairs(subject: Subject) -> str:
    repaired, held = subject.counts.get("repaired", 0), subject.counts.get("quarantined", 0)
    return f"left out: {plural(held, 'row')}; repaired by people: {repaired:,}; each is on record"


def _say_hashes(subject: Subject) -> str:
    signed = "the ledger's chain and the manifest say the SHA-256 of every row and file"
    return f"{signed} ({subject.rows:,} rows, {plural(len(subject.manifest.files), 'file')})"


def _say_lineage(subject: Subject) -> str:
    sources, runs = subject.lineage.list("source"), subject.lineage.list("training run")
    return (
        f"{plural(len(sources), 'source')}, audits, decisions and release are followed to "
        f"{plural(len(runs), 'training run')} that named it"
    )


def _say_people(subject: Subject) -> str:
    decided = sum(step.facts["rows"] for step in subject.lineage.list("decision"))
    return (
        f"{plural(decided, 'row')} of the release by a person's decision, with author, time and "
        "reason in an append-only chain; the dashboard has accounts and roles"
    )


def _say_not_covered(_: Subject) -> str:
    return "not covered: Poisonwatch keeps secrets out of its own files, and redacts no rows"


OWASP = "OWASP Top 10 for LLM Applications 2026"
AISVS = "OWASP AISVS 1.0, C1"
ATLAS = "MITRE ATLAS"
NIST = "NIST AI 100-2 E2025"
AI_ACT = "EU AI Act, Regulation (EU) 2024/1689"
AISVS_URL = (
    "https://github.com/OWASP/AISVS/blob/main/1.0/en/"
    "0x10-C01-Training-Data-Integrity-and-Traceability.md"
)
NIST_URL = "https://doi.org/10.6028/NIST.AI.100-2e2025"
VERIFY, GATE, LINEAGE = "poisonwatch verify", "poisonwatch gate", "poisonwatch lineage"
MANIFEST = "manifest.json"

CONTROLS = (
    Control(
        OWASP,
        "LLM05:2026",
        "Data and model poisoning: training data is manipulated to plant backdoors or bias",
        "https://genai.owasp.org/llm-top-10/",
        True,
        _say_audits,
        (MANIFEST, GATE),
    ),
    Control(
        AISVS,
        "1.3.1",
        "access control on who may create, change or approve labels",
        AISVS_URL,
        True,
        _say_people,
        ("poisonwatch decisions", VERIFY),
    ),
    Control(
        AISVS,
        "1.3.5",
        "sensitive information in labels is redacted, anonymised or encrypted",
        AISVS_URL,
        False,
        _say_not_covered,
    ),
    Control(
        AISVS,
        "1.2.5",
        "hashes or signatures keep training data whole in storage and transfer",
        AISVS_URL,
        True,
        _say_hashes,
        (MANIFEST, VERIFY, GATE),
    ),
    Control(
        AISVS,
        "1.4.2",
        "pipelines detect poisoning of training data",
        AISVS_URL,
        True,
        _say_audits,
        (MANIFEST, GATE),
    ),
    Control(
        AISVS,
        "1.5.1",
        "the lineage of each data set is recorded, and can be reconstructed",
        AISVS_URL,
        True,
        _say_lineage,
        (LINEAGE, "croissant.json"),
    ),
    Control(
        ATLAS,
        "AML.T0020",
        "Poison Training Data: the technique",
        "https://atlas.mitre.org/techniques/AML.T0020",
        True,
        _say_audits,
        (MANIFEST, GATE),
    ),
    Control(
        ATLAS,
        "AML.M0007",
        "Sanitize Training Data: poisoned data is detected, and removed or remediated",
        "https://atlas.mitre.org/mitigations/AML.M0007",
        True,
        _say_repairs,
        (MANIFEST, "poisonwatch decisions"),
    ),
    Control(
        NIST,
        "NISTAML.013, .021, .023, .024",
        "data poisoning, clean-label, backdoor and targeted poisoning, and their mitigations",
        NIST_URL,
        True,
        _say_audits,
        (MANIFEST, GATE),
    ),
    Control(
        AI_ACT,
        "Article 10",
        "data governance: origin of data, preparation, examination of training data",
        "https://eur-lex.europa.eu/eli/reg/2024/1689/oj",
        True,
        _say_lineage,
        (LINEAGE, "croissant.json", "bom.cdx.json"),
    ),
    Control(
        AI_ACT,
        "Article 15(5)",
        "measures to prevent, detect, respond to and control data poisoning",
        "https://eur-lex.europa.eu/eli/reg/2024/1689/oj",
        True,
        _say_audits,
        (MANIFEST, GATE, VERIFY),
    ),
)
