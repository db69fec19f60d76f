"""Who signs what audits and people say: the section `signing` of an audit file."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from poisonwatch.attestation.keys import (
    SHOWN_DIGITS,
    PublicKey,
    parse_private_key,
    read_private_key,
    read_public_keys,
)
from poisonwatch.attestation.signer import CommandSigner, KeySigner, Signer
from poisonwatch.errors import ConfigError
from poisonwatch.source_config import Section
from poisonwatch.text.environment import expand_home, expand_variables

PEM_START = "-----BEGIN"
HIDDEN = "***"


class SigningConfig(Section):
    """The key that signs, and those whose signatures count. Nothing is signed by default."""

    key: str | None = None
    """The private key: a file that only its owner may read, or ${NAME} of an environment variable
    that holds the key itself, in PEM.
    """
    command: str | None = None
    """In place of a key: a command that asks a key service. It gets what is to be signed on its
    standard input, and prints the signature, as it is or in base64; ${NAME} is put into its words.
    """
    timeout_s: float = Field(30, gt=0)
    """How long the command may take."""
    public: list[str] = Field([])
    """Public keys that count. The first is that of `key` or `command`; former ones come after it.
    """

    @model_validator(mode="after")
    def _check_keys(self) -> "SigningConfig":
        if self.key is not None and self.command is not None:
            raise ValueError("key and command are two ways to sign: leave one of them out")
        if self.key is not None and PEM_START in self.key:
            raise ValueError(
                "key is the name of a file, or ${NAME}: a private key does not belong into an "
                "audit file"
            )
        return self

    def resolve(self, folder: Path) -> "SigningConfig":
        """The same with relative files from a folder; what a variable holds stays out of it."""
        key = self.key and _resolve_file(self.key, folder)
        public = [_resolve_file(place, folder) for place in self.public]
        return self.model_copy(update={"key": key, "public": public})

    def to_public_dict(self) -> dict[str, Any]:
        """The section without secrets: a command's arguments may be some."""
        settings = self.model_dump(mode="json")
        words = (self.command or "").split(maxsplit=1)
        if len(words) > 1:
            settings["command"] = f"{words[0]} {HIDDEN}"
        return settings

    def load_public_keys(self) -> dict[str, PublicKey]:
        """The keys whose signatures count, by their ids. Raises ConfigError where one is none."""
        return read_public_keys(expand_variables(place, "signing.public") for place in self.public)

    def load_signer(self) -> Signer | None:
        """What signs from now on; None where nobody is to. Raises ConfigError where the key cannot
        be used, or the gate would not trust what it signs.
        """
        public = self.load_public_keys()
        signer: Signer
        if self.key is not None:
            signer = KeySigner(self._load_key(self.key))
        elif self.command is not None:
            signer = self._make_command(self.command, list(public.values()))
        else:
            return None
        if public and signer.key_id not in public:
            raise ConfigError(
                f"signing.public does not name the key {signer.key_id[:SHOWN_DIGITS]}, which "
                "signs: put its .pub file first in the list"
            )
        return signer

    def _load_key(self, setting: str) -> Ed25519PrivateKey:
        text = expand_variables(setting, "signing.key")
        if PEM_START in text:
            # A variable on one line is what some systems make of it.
            return parse_private_key(text.replace("\\n", "\n").encode(), setting)
        return read_private_key(expand_home(text), shown=setting)

    def _make_command(self, command: str, public: list[PublicKey]) -> Signer:
        if command.endswith(f" {HIDDEN}"):
            raise ConfigError(
                "signing.command: a run leaves its arguments out of its config.yaml: write them "
                "in again, or give the audit file itself"
            )
        return CommandSigner(
            command,
            public,
            self.timeout_s,
            expand=lambda word: expand_variables(word, "signing.command"),
        )


def _resolve_file(place: str, folder: Path) -> str:
    """A file's name as an absolute one; one that a variable begins as it is."""
    if place.startswith("${"):
        return place
    return str(folder / expand_home(place))
