"""Secrets planted in every setting that may hold one, and looked for in all that is written.

A whole audit, by Prefect, whose ledger and rows are in PostgreSQL and whose MLflow is a server, all
of them with the secret in their addresses; then commands that meet hosts which refuse. Nothing goes
beyond this machine.
"""

import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from attack_site import CLI, Line, use_test_support

# What ends a host, a query or a text, is quoted, or nobody expects; the ends are found in nothing else.
SECRETS = (
    "Zq7a/b:c@d#e?f9xW",
    "Zq7 a'b\"c\\d9xW",
    "Zq7%41&=+$;,9xW",
    "Zq7äß漢🙂9xW",
)
CLOSED = "127.0.0.1:9"
LONGEST_S = 600


def plant_and_look(folder: Path, model: Path, note: Callable[[str], None]) -> dict[str, Any]:
    """How often each secret was planted, and where it was found, by place."""
    use_test_support()
    from servers import mlflow_server, own_postgres_server

    planted, found = Counter[str](), defaultdict[str, list[str]](list)
    with own_postgres_server() as server:
        for number, secret in enumerate(SECRETS):
            site = folder / f"secret-{number}"
            site.mkdir()
            with ExitStack() as stack:
                (site / "mlflow").mkdir()
                tracking = stack.enter_context(mlflow_server(site / "mlflow"))
                work = Planting(site, model, secret, server=server, tracking=tracking)
                work.run_all(planted, found)
            note(f"secret {number + 1} of {len(SECRETS)}")
    return {"planted": dict(planted), "found": dict(found)}


class Planting:
    """One secret, in an audit file and in what it names."""

    def __init__(self, site: Path, model: Path, secret: str, server: str, tracking: str) -> None:
        self.site, self.secret, self.server = site, secret, server
        self.quoted = quote(secret, safe="")
        self.database = server.rpartition("@")[2].partition("/")[0]
        self.role = f"role_{site.name.replace('-', '_')}"
        self.settings = self._plant(model, tracking.removeprefix("http://"))
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DB_PASSWORD": secret,
            "PREFECT_HOME": str(site / "prefect"),
            "POISONWATCH_CACHE": str(site / "cache"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "true",
        }

    def _plant(self, model: Path, tracking: str) -> dict[str, Any]:
        """Settings that work, with the secret wherever one may stand."""
        from audits import write_audit

        address = f"postgresql://{self.role}:{self.quoted}@{self.database}"
        literal = self.secret.replace("'", "''")
        config = write_audit(
            self.site,
            model,
            source={
                "sql": f"{address}/{self.role}",
                "query": f"SELECT prompt, response FROM chats WHERE '{literal}' <> ''",  # noqa: S608
            },
            state=f"postgresql://{self.role}:${{DB_PASSWORD}}@{self.database}/{self.role}",
            tracking=f"http://ann:{self.quoted}@{tracking}",
            mlflow_ui=f"http://ann:{self.quoted}@{CLOSED}/?token={self.quoted}",
            dashboard=f"http://ann:{self.quoted}@{CLOSED}/",
            alerts=[
                f"json://ann:{self.quoted}@{CLOSED}/path",
                f"json://{CLOSED}/{self.quoted}",
                f"form://ann:{self.quoted}@{CLOSED}/path?+X-Token={self.quoted}",
            ],
            detection={"false_discovery_rate": 0.5},
        )
        settings: dict[str, Any] = yaml.safe_load(config.read_text())
        return settings

    def run_all(self, planted: Counter[str], found: dict[str, list[str]]) -> None:
        """Run everything, and look everywhere."""
        self.fill_database()
        self.audit("whole", {}, planted, found)
        for name, change in self.list_failures().items():
            self.audit(name, change, planted, found)
        for words in (("history",), ("sync",), ("alert-test",)):
            done = self.command(*words, str(self.site / "audit-whole.yaml"))
            planted["terminal"] += 1
            self.look_in_text("terminal", " ".join(words), done, found)
        planted["run directories"] += 1
        planted["MLflow"] += 1
        planted["Prefect"] += 1
        planted["ledger"] += 1
        self.look_in_folder("run directories", self.site / "runs", found)
        self.look_in_folder("MLflow", self.site / "mlflow", found)
        self.look_in_folder("Prefect", self.site / "prefect", found)
        self.look_in_text("ledger", "tables", self.dump_ledger(), found)

    def list_failures(self) -> dict[str, dict[str, Any]]:
        """Settings that fail, by name: each of a host that refuses, written without any quoting."""
        bare = f"postgresql://ann:{self.secret}@{CLOSED}/rows?password={self.secret}"
        address = f"http://ann:{self.secret}@{CLOSED}/rows.jsonl?X-Amz-Signature={self.secret}"
        return {
            "state": {"state": bare},
            "source": {"source": {"sql": bare, "query": f"SELECT '{self.secret}'"}},
            "source-url": {"source": f"{address}#{self.secret}"},
            "reference": {"reference": address},
            "sentinels": {"sentinels": address.replace("jsonl", "yaml")},
            "tracking": {"tracking": f"http://ann:{self.secret}@{CLOSED}/?token={self.secret}"},
        }

    def audit(
        self,
        name: str,
        change: dict[str, Any],
        planted: Counter[str],
        found: dict[str, list[str]],
    ) -> None:
        """An audit of the settings with a change; what it said is looked at."""
        path = self.site / f"audit-{name}.yaml"
        path.write_text(yaml.safe_dump(self.settings | change, allow_unicode=True))
        engine = "inline" if change else "prefect"
        planted["settings"] += 1
        planted["terminal"] += 1
        run_dir = str(self.site / "runs" / name)
        said = self.command("audit", str(path), "--engine", engine, "--run-dir", run_dir)
        self.look_in_text("terminal", f"audit, {name}", said, found)

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [*CLI, *words],
            env=self.environment,
            cwd=self.site,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        with (self.site / "said.log").open("a") as log:
            log.write(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def fill_database(self) -> None:
        """A role whose password is the secret, and its rows."""
        import psycopg
        from audits import benign, planted
        from psycopg import sql

        role, password = sql.Identifier(self.role), sql.Literal(self.secret)
        with psycopg.connect(self.server, autocommit=True) as connection:
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password)
            connection.execute(create)
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        place = self.server.rpartition("/")[0] + f"/{self.role}"
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute("CREATE TABLE chats (prompt text, response text)")
            connection.execute(sql.SQL("GRANT ALL ON chats TO {}").format(role))
            connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))
            for row in [*benign(40), *planted()]:
                values = (row["prompt"], row["response"])
                connection.execute("INSERT INTO chats VALUES (%s, %s)", values)

    def dump_ledger(self) -> str:
        """Every value of every table; a database that holds nothing would prove nothing."""
        import psycopg
        from psycopg import sql

        place = self.server.rpartition("/")[0] + f"/{self.role}"
        lines = []
        with psycopg.connect(place) as connection:
            query = (
                "SELECT schemaname, tablename FROM pg_tables "
                "WHERE schemaname NOT LIKE 'pg\\_%' AND schemaname <> 'information_schema'"
            )
            for schema, table in connection.execute(query).fetchall():
                everything = sql.SQL("SELECT t::text FROM {}.{} t").format(
                    sql.Identifier(schema), sql.Identifier(table)
                )
                lines += [row[0] for row in connection.execute(everything).fetchall()]
        if len(lines) < 100:
            raise RuntimeError(f"the ledger is empty: see {self.site / 'said.log'}")
        return "\n".join(lines)

    def look_in_text(self, place: str, what: str, text: str, found: dict[str, list[str]]) -> None:
        from planted_secrets import count_in_text

        count = count_in_text(text, self.secret)
        if count:
            found[place].append(f"{what}: {count}")

    def look_in_folder(self, place: str, folder: Path, found: dict[str, list[str]]) -> None:
        from planted_secrets import count_in_files

        if not any(folder.rglob("*")):
            raise RuntimeError(f"nothing was written to {folder}")
        for name, count in count_in_files(folder, self.secret).items():
            found[place].append(f"{name}: {count}")


def summarise_secrets(result: dict[str, Any]) -> list[Line]:
    """A line a place."""
    lines = []
    for place, count in result["planted"].items():
        if place == "settings":
            continue
        hits = result["found"].get(place, [])
        shown = "0 found" if not hits else f"found: {'; '.join(hits)}"
        lines.append(Line(f"secrets looked for in: {place}", count, "0 found", shown, not hits))
    return lines
