"""The users of the stores in the deployment, on real stores: what each may do, and what it may not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis
import requests

from dev.stack.postgres import Postgres
from dev.stack.servers import Server, free_port, valkey_command, wait_until
from inbox import queries
from inbox.client import connect
from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.store import Store
from tasks.db.migrate import migrate
from tests.support.signed_deliveries import API_KEY, signed_by_stripe, stripe_event
from tests.support.stack import ROOT, Stack

PASSWORDS = {"holdfast": "the-password-of-holdfast", "flower": "the-password-of-flower", "admin": "of-this-test"}


class DeployedValkey(Server):
    """Started by deploy/start-valkey.sh, with a user more, who reads which commands were refused."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()

    def __enter__(self) -> DeployedValkey:
        self._configure()
        self.start()
        return self

    def start(self) -> None:
        environ = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "VALKEY_MAXMEMORY": "100mb",
            "VALKEY_PASSWORD": PASSWORDS["holdfast"],
            "VALKEY_FLOWER_PASSWORD": PASSWORDS["flower"],
        }
        self.spawn(["sh", self.folder / "deploy" / "start-valkey.sh"], env=environ)
        wait_until(self._answers, seconds=30, what="Valkey")

    def _configure(self) -> None:
        shutil.copytree(ROOT / "deploy", self.folder / "deploy")
        conf = self.folder / "deploy" / "valkey.conf"
        own = f"port {self.port}\nuser admin on >{PASSWORDS['admin']} ~* &* +@all\n"
        conf.write_text(conf.read_text().replace("/var/lib/holdfast", str(self.folder)) + own)
        (self.folder / "valkey-server").symlink_to(valkey_command(self.folder, self.port)[0])

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def url(self, user: str) -> str:
        return f"redis://{user}:{PASSWORDS[user]}@127.0.0.1:{self.port}/0"

    def client(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(user))

    def refused(self) -> list[str]:
        return [f"{one['username']}: {one['object']}" for one in self.client("admin").acl_log()]

    def _answers(self) -> bool:
        try:
            return bool(self.client("admin").ping())
        except redis.RedisError:
            return False


@pytest.fixture
def valkey_of_deploy(tmp_path: Path) -> Iterator[DeployedValkey]:
    with DeployedValkey(tmp_path / "valkey") as server:
        yield server


@contextmanager
def running(folder: Path, server: DeployedValkey) -> Iterator[Stack]:
    stack = Stack(folder, {"REDIS_URL": server.url("holdfast")})
    try:
        stack.migrate()
        yield stack
    finally:
        stack.end()


@pytest.mark.slow
def test_receiver_workers_and_flower_are_refused_nothing_that_they_need(
    tmp_path: Path, valkey_of_deploy: DeployedValkey
) -> None:
    with running(tmp_path, valkey_of_deploy) as stack:
        port = free_port()
        where = ("--conf=workers/flowerconfig.py", f"--port={port}", "--basic-auth=a:b", "--enable_events=False")
        stack.part(
            *("celery", "-A", "workers.flower_app", "flower", *where),
            name="flower",
            REDIS_URL=valkey_of_deploy.url("flower"),
        )
        stack.receiver()

        def flower(path: str) -> requests.Response:
            try:
                return requests.get(f"http://127.0.0.1:{port}/{path}", auth=("a", "b"), timeout=30)
            except requests.ConnectionError:
                return requests.Response()

        wait_until(lambda: flower("tasks").status_code == 200, seconds=120, what="Flower")
        stack.worker(app="workers.app")
        body, headers = signed_by_stripe(stripe_event("evt_1", "invoice.payment_failed", id="in_1"))
        assert requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=30).ok
        wait_until(lambda: flower("api/tasks").json(), seconds=60, what="the task in Flower")
        assert flower("api/workers?refresh=1").ok
        assert flower("api/queues/length").ok
        assert flower("broker").status_code == 200
        bearer = {"Authorization": f"Bearer {API_KEY}"}
        wait_until(
            lambda: requests.get(stack.url("/readyz"), timeout=30).ok, seconds=30, what="the worker's first sweep"
        )
        assert requests.get(stack.url("/api/v1/stats"), headers=bearer, timeout=30).ok
    assert valkey_of_deploy.refused() == []


def test_flower_reads_nothing_of_the_record(valkey_of_deploy: DeployedValkey) -> None:
    flower = valkey_of_deploy.client("flower")
    valkey_of_deploy.client("holdfast").set("{holdfast}:body:stripe:evt_1", "personal data")
    attempts = (
        lambda: flower.get("{holdfast}:body:stripe:evt_1"),
        lambda: flower.delete("{holdfast}:body:stripe:evt_1"),
        lambda: flower.keys("*"),
        flower.scan,
        lambda: flower.eval("return redis.call('GET', '{holdfast}:body:stripe:evt_1')", 0),
        lambda: flower.lpush("payments", "a doorbell of its own"),
        flower.flushall,
        lambda: flower.config_get("*"),
    )
    for attempt in attempts:
        with pytest.raises(redis.exceptions.NoPermissionError):
            attempt()


def test_what_was_recorded_is_there_after_the_store_was_killed_and_started_again(
    valkey_of_deploy: DeployedValkey,
) -> None:
    store = Store(connect(valkey_of_deploy.url("holdfast"), timeout_seconds=5))
    for name in ("done", "waits"):
        store.record(Event("stripe", f"evt_{name}", "x", b"{}"), [NewJob(name, "t", "payments")], "now")
    lease = store.lease("done", "worker", 60)
    assert isinstance(lease, Lease)
    store.finish(lease, [NewJob("follow-up", "t", "payments")])
    before = queries.stats(store)
    valkey_of_deploy.kill()
    valkey_of_deploy.start()
    assert queries.stats(store) == before
    assert (before["accepted"], before["succeeded"], before["unfinished"]) == (2, 1, 2)
    assert isinstance(store.lease("waits", "worker", 60), Lease)


def test_nobody_logs_in_as_the_default_user(valkey_of_deploy: DeployedValkey) -> None:
    for password in ("", PASSWORDS["holdfast"]):
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=valkey_of_deploy.port, username="default", password=password).ping()


def test_nobody_administers_the_store_over_the_network(valkey_of_deploy: DeployedValkey) -> None:
    holdfast = valkey_of_deploy.client("holdfast")
    attempts = (
        holdfast.flushall,
        lambda: holdfast.config_set("appendfsync", "no"),
        lambda: holdfast.execute_command("ACL", "LIST"),
        holdfast.shutdown,
        lambda: holdfast.replicaof("evil.example", 6379),
        lambda: holdfast.execute_command("MODULE", "LOAD", "/tmp/x.so"),
        lambda: holdfast.execute_command("DEBUG", "SLEEP", "0"),
    )
    for attempt in attempts:
        with pytest.raises(redis.ResponseError):
            attempt()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=valkey_of_deploy.port).ping()


@pytest.fixture
def with_passwords(postgres: Postgres) -> Iterator[Postgres]:
    """The role of the application has to give its password."""
    rules = postgres.folder / "data" / "pg_hba.conf"
    trusting = rules.read_text()
    rules.write_text(f"local all holdfast scram-sha-256\n{trusting}")
    postgres.sql("SELECT pg_reload_conf()")
    yield postgres
    rules.write_text(trusting)
    postgres.sql("SELECT pg_reload_conf()")
    postgres.sql("DROP DATABASE IF EXISTS holdfast WITH (FORCE)")
    postgres.sql("DROP ROLE IF EXISTS holdfast")
    postgres.sql("GRANT CONNECT, TEMPORARY ON DATABASE postgres TO PUBLIC")


def create_role(postgres: Postgres, password: str) -> None:
    environ = {
        "PATH": f"{postgres.bin}:{os.environ['PATH']}",
        "PGHOST": str(postgres.folder),
        "HOLDFAST_PASSWORD": password,
    }
    subprocess.run(["sh", ROOT / "deploy" / "create-role.sh"], env=environ, check=True)


def log_in(postgres: Postgres, password: str, database: str = "holdfast") -> psycopg.Connection:
    return psycopg.connect(
        host=str(postgres.folder), user="holdfast", password=password, dbname=database, autocommit=True
    )


def test_the_role_of_the_application_owns_its_database_and_is_no_superuser(with_passwords: Postgres) -> None:
    password = "it's-a-$password"
    create_role(with_passwords, password)
    migrate(f"postgresql+psycopg://holdfast:{quote(password)}@/holdfast?host={with_passwords.folder}")
    with log_in(with_passwords, password) as role:
        assert role.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone() == (False, False, False)
        for statement in ("SELECT pg_read_file('/etc/passwd')", "COPY effects TO PROGRAM 'id'", "CREATE ROLE x"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                role.execute(statement.encode())
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        log_in(with_passwords, password, "postgres")


def test_the_role_gets_a_changed_password_and_keeps_its_rows(with_passwords: Postgres) -> None:
    create_role(with_passwords, "the-first-password")
    with log_in(with_passwords, "the-first-password") as role:
        role.execute("CREATE TABLE kept (id int)")
    for _ in range(2):
        create_role(with_passwords, "the-second-password")
    with log_in(with_passwords, "the-second-password") as role:
        role.execute("SELECT id FROM kept")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(with_passwords, "the-first-password")


def test_a_role_without_a_database_gets_one(with_passwords: Postgres) -> None:
    """As left by a run that was interrupted."""
    with_passwords.sql("CREATE ROLE holdfast NOLOGIN")
    create_role(with_passwords, "a-password")
    with log_in(with_passwords, "a-password") as role:
        role.execute("CREATE TABLE mine (id int)")
