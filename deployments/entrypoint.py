"""What a container starts first: secrets come from files, then its command runs.

    python entrypoint.py COMMAND [ARGUMENT ...]

NAME_FILE=/run/secrets/name sets NAME to what the file holds. ${NAME} in any other variable is
replaced by it, quoted where it is the password of a URL. So no secret stands in a compose file, in
what `docker inspect` shows, or in a list of processes.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from poisonwatch.errors import ConfigError
from poisonwatch.text.environment import expand_variables

_SUFFIX = "_FILE"


def main() -> NoReturn:
    if len(sys.argv) < 2:
        sys.exit("entrypoint: name a command, such as poisonwatch --help")
    try:
        secrets = read_secrets(os.environ)
        os.environ.update(secrets)
        # Who reads such files itself would ask which of the two counts.
        for name in secrets:
            del os.environ[name + _SUFFIX]
        os.environ.update(fill_in(os.environ, secrets))
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  (its arguments are the container's)
    except (ConfigError, OSError) as error:
        sys.exit(f"entrypoint: {error}")


def read_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """NAME and what the file of NAME_FILE holds, less the line break at its end. A file that is not
    in the folder of secrets is left to whom it is for (SSL_CERT_FILE is no secret).

    Raises ConfigError where NAME is set, too, and OSError where a file cannot be read.
    """
    folder = environment.get("SECRETS_FOLDER", "/run/secrets")
    found = {}
    for variable, path in environment.items():
        name = variable.removesuffix(_SUFFIX)
        if name in (variable, "") or not Path(path).is_relative_to(folder):
            continue
        if environment.get(name):
            raise ConfigError(f"both {name} and {variable} are set: remove one of them")
        found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    return found


def fill_in(environment: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a secret as ${NAME}, with it in its place.

    Raises ConfigError where such a variable names another one that is not set.
    """
    filled = {}
    for variable, text in environment.items():
        if variable not in secrets and any(f"${{{name}}}" in text for name in secrets):
            filled[variable] = expand_variables(text, variable)
    return filled


if __name__ == "__main__":
    main()
