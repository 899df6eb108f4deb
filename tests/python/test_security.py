"""Users, tokens, grants, TLS and what nobody is to see, over ADBC and pyarrow.flight."""

import base64
import hashlib
import hmac
import http.server
import json
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request

import pyarrow as pa
import pytest

import tidegate
from security import PASSWORD, As, Authority, Issuer, Raw, any_, basic, field, outcome, text64
from test_command_line import finished


@pytest.fixture
def secured(serve):
    """A server that has the user `admin`; `secured(*arguments, **settings)` gives it, and the admin's view of it."""

    def start(*arguments, **settings):
        server = serve(*arguments, **({"admin_password": PASSWORD} | settings))
        return server, As(server, "admin")

    return start


def source(broker, name="s", **properties):
    more = "".join(f", 'properties.{key.replace('_', '.')}' = '{value}'" for key, value in properties.items())
    return f"""CREATE SOURCE {name} (a BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 'walk',
      'bootstrap.servers' = '{broker.bootstrap}', format = 'json'{more})"""


def user(admin, name, *grants):
    admin.query(f"CREATE USER {name} WITH PASSWORD '{PASSWORD}'")
    for grant in grants:
        admin.query(f"GRANT {grant} TO {name}")
    return As(admin.server, name)


# --- logging in

def test_without_users_nothing_is_to_be_configured(serve):
    server = serve()
    assert server.value("SELECT current_user") is None
    assert Raw(server.url).query("SELECT 1 AS x") == [{"x": 1}]
    assert Raw(server.url, "Bearer anything").query("SELECT 1 AS x") == [{"x": 1}]
    raw = Raw(server.url)
    assert raw.log_in("whoever", "whatever").startswith("Bearer ") and raw.query("SELECT 1 AS x") == [{"x": 1}]
    assert "there are no users yet" in server.refusal("GRANT SELECT ON x TO y")


def test_the_first_user_closes_the_door(serve):
    server = serve()
    assert "ADMIN" in server.refusal(f"CREATE USER bob WITH PASSWORD '{PASSWORD}'")
    other = server.connect()
    # Whoever makes the first user hears that it was done, though they have no credentials.
    server.query(f"CREATE USER root WITH PASSWORD '{PASSWORD}' ADMIN")
    assert "credentials are needed" in server.refusal("SELECT 1")
    with pytest.raises(Exception, match="credentials are needed"), other.cursor() as cursor:
        cursor.execute("SELECT 1")
    root = As(server, "root")
    assert root.value("SELECT current_user") == "root"
    server.restart()
    assert As(server, "root").value("SELECT current_user") == "root"


def test_basic_and_bearer_on_every_call(secured):
    server, admin = secured()
    for padded in (True, False):
        for password in (PASSWORD, PASSWORD + ":x"):
            raw = Raw(server.url, basic("admin", password, padded))
            how, said = outcome(lambda: raw.query("SELECT current_user AS u"))
            assert (how, said) == (("ok", [{"u": "admin"}]) if password == PASSWORD else ("Unauthenticated", said)), said
    raw = Raw(server.url)
    assert outcome(lambda: raw.query("SELECT 1"))[0] == "Unauthenticated"
    header = raw.log_in("admin")
    assert header.count(".") == 2 and raw.query("SELECT current_user AS u") == [{"u": "admin"}]
    # The payload of the handshake has the token as well, and a token is good for a handshake.
    assert Raw(server.url, header).query("SELECT 1 AS x") == [{"x": 1}]
    again = As(server, token=header.removeprefix("Bearer "))
    assert again.value("SELECT current_user") == "admin"
    as_password = As(server, "token", header.removeprefix("Bearer "))
    assert as_password.value("SELECT current_user") == "admin"
    for header in ("Digest x", "Basic !!", "Bearer x.y.z", "Bearer x", basic("admin", ""), basic("", "")):
        assert outcome(lambda: Raw(server.url, header).query("SELECT 1"))[0] == "Unauthenticated", header


def test_nothing_answers_without_credentials(secured):
    server, _ = secured()
    raw = Raw(server.url)
    calls = [
        lambda: raw.info("SELECT 1"),
        lambda: list(raw.client.list_flights(options=raw.options)),
        lambda: list(raw.client.list_actions(raw.options)),
        lambda: raw.prepare("SELECT 1"),
        lambda: raw.act("GetSessionOptions", b""),
        lambda: raw.act("ClosePreparedStatement", any_("ActionClosePreparedStatementRequest", field(1, b"x"))),
        lambda: raw.client.get_schema(__import__("pyarrow").flight.FlightDescriptor.for_command(any_("CommandStatementQuery", field(1, "SELECT 1"))), raw.options),
        lambda: raw.client.do_get(__import__("pyarrow").flight.Ticket(any_("CommandGetTables", b"")), raw.options).read_all(),
    ]
    for at, call in enumerate(calls):
        assert outcome(call)[0] == "Unauthenticated", at


def test_unknown_users_and_wrong_passwords_are_told_the_same(secured):
    server, _ = secured()
    said = {outcome(lambda: Raw(server.url, basic(name, "wrong password")).query("SELECT 1")) for name in ("admin", "nobody")}
    assert len(said) == 1 and "invalid credentials" in said.pop()[1]


def test_forged_tokens(secured):
    server, _ = secured()
    token = Raw(server.url).log_in("admin").removeprefix("Bearer ")
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    key = base64.urlsafe_b64decode((server.data / "token.key").read_text() + "==")

    def signed(claims, key=key, head='{"alg":"HS256","typ":"JWT"}'):
        text = text64(head.encode()) + "." + text64(claims)
        return text + "." + text64(hmac.new(key, text.encode(), hashlib.sha256).digest())

    assert As(server, token=signed(claims)).value("SELECT 1") == 1, "the test signs as the server does"
    bad = {
        "other key": signed(claims, key=b"x" * 32),
        "alg none": text64({"alg": "none", "typ": "JWT"}) + "." + payload + ".",
        "alg none, signed": signed(claims, head='{"alg":"none","typ":"JWT"}'),
        "no signature": header + "." + payload + ".",
        "another user": signed(claims | {"sub": "root"}),
        "another credential": signed(claims | {"credential": "x"}),
        "another payload": header + "." + text64(claims | {"sub": "root"}) + "." + signature,
    }
    for name, token in bad.items():
        how, said = outcome(lambda: Raw(server.url, "Bearer " + token).query("SELECT 1"))
        assert (how, "invalid credentials" in said) == ("Unauthenticated", True), (name, said)
    how, said = outcome(lambda: Raw(server.url, "Bearer " + signed(claims | {"exp": int(time.time()) - 1})).query("SELECT 1"))
    assert how == "Unauthenticated" and "expired" in said


def test_a_new_password_and_a_dropped_user_end_tokens(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    admin.query(source(broker))
    bob = user(admin, "bob", "SELECT ON s")
    raw = Raw(server.url)
    raw.log_in("bob")
    assert raw.query("SELECT current_user AS u") == [{"u": "bob"}]
    assert "only an admin" in bob.refusal("ALTER USER admin WITH PASSWORD 'another horse'")
    assert "only an admin" in bob.refusal("ALTER USER bob ADMIN")
    bob.query("ALTER USER bob WITH PASSWORD 'another horse'")
    assert outcome(lambda: raw.query("SELECT 1"))[0] == "Unauthenticated"
    bob = As(server, "bob", "another horse")
    raw = Raw(server.url)
    raw.log_in("bob", "another horse")
    following = tidegate.Subscription(bob, "SELECT * FROM s EMIT CHANGES")
    admin.query("DROP USER bob")
    assert outcome(lambda: raw.query("SELECT 1"))[0] == "Unauthenticated"
    # Neither does what runs go on.
    assert following.ended.wait(10) and "may no longer read" in str(following.error)
    admin.query(f"CREATE USER bob WITH PASSWORD '{PASSWORD}'")
    assert outcome(lambda: raw.query("SELECT 1"))[0] == "Unauthenticated"
    assert As(server, "bob").query("SHOW TABLES") == []


def test_failed_logins_are_limited(secured):
    server, admin = secured()
    user(admin, "bob"), user(admin, "ann")
    token = Raw(server.url).log_in("bob")
    codes = [outcome(lambda: Raw(server.url, basic("bob", f"wrong {n}")).query("SELECT 1"))[0] for n in range(12)]
    assert codes[:10] == ["Unauthenticated"] * 10 and codes[10:] == ["ResourceExhausted"] * 2
    how, said = outcome(lambda: Raw(server.url, basic("bob", PASSWORD)).query("SELECT 1"))
    assert how == "ok" or "too many failed logins" in said
    assert Raw(server.url, token).query("SELECT 1 AS x") == [{"x": 1}], "who has logged in goes on"
    assert Raw(server.url, basic("ann", PASSWORD)).query("SELECT 1 AS x") == [{"x": 1}], "others are not concerned"


def test_user_management(secured):
    server, admin = secured()
    user(admin, "bob")
    admin.query("CREATE ROLE reader")
    admin.query("GRANT reader TO bob")
    assert admin.query("SHOW USERS") == [
        {"name": "admin", "kind": "user", "admin": True, "roles": ""},
        {"name": "bob", "kind": "user", "admin": False, "roles": "reader"},
        {"name": "reader", "kind": "role", "admin": None, "roles": None},
    ]
    assert [row["name"] for row in As(server, "bob").query("SHOW USERS")] == ["bob", "reader"]
    for sql, words in [
        (f"CREATE USER bob WITH PASSWORD '{PASSWORD}'", "already"),
        ("CREATE USER x WITH PASSWORD 'short'", "at least 8"),
        (f"CREATE USER \"a:b\" WITH PASSWORD '{PASSWORD}'", "letters, digits"),
        (f"CREATE USER token WITH PASSWORD '{PASSWORD}'", "something else"),
        ("CREATE ROLE bob", "already"),
        ("DROP USER nobody", "no user nobody"),
        ("DROP ROLE nobody", "no role nobody"),
        ("DROP USER admin", "one admin has to stay"),
        ("ALTER USER admin NOT ADMIN", "one admin has to stay"),
        ("GRANT reader TO reader", "is a role"),
        ("GRANT nonsense TO bob", "no role nonsense"),
        ("GRANT SELECT ON nothing TO bob", "nothing"),
        ("GRANT SELECT ON SCHEMA system TO bob", "schema public"),
        ("GRANT DELETE ON SCHEMA public TO bob", "no privilege DELETE"),
        ("GRANT CREATE ON SCHEMA public TO nobody", "no user or role nobody"),
        ("SHOW GRANTS FOR nobody", "no user or role nobody"),
    ]:
        assert words in admin.refusal(sql), sql
    admin.query(f"CREATE USER IF NOT EXISTS bob WITH PASSWORD '{PASSWORD}'")
    admin.query("DROP USER IF EXISTS nobody")
    admin.query("GRANT SELECT, CREATE ON SCHEMA public TO reader")
    admin.query("GRANT READ FILES TO bob")
    assert admin.query("SHOW GRANTS FOR bob") == [
        {"grantee": "bob", "privilege": "MEMBER", "kind": "role", "object": "reader"},
        {"grantee": "bob", "privilege": "READ FILES", "kind": "files", "object": ""},
    ]
    assert len(As(server, "bob").query("SHOW GRANTS")) == 4
    for sql in ("CREATE ROLE x", "DROP ROLE reader", "GRANT reader TO bob", "GRANT ALL ON SCHEMA public TO bob", f"CREATE USER x WITH PASSWORD '{PASSWORD}'", "DROP USER admin"):
        assert outcome(lambda: As(server, "bob").query(sql))[0] == "PermissionDenied", sql
    admin.query("ALTER USER bob ADMIN")
    As(server, "bob").query("DROP USER admin")
    assert [row["name"] for row in As(server, "bob").query("SHOW USERS")] == ["bob", "reader"]


def test_the_pages_statements_run(secured):
    """The blocks of docs/security.md, from top to bottom."""
    import re
    page = (tidegate.REPOSITORY / "docs/security.md").read_text()
    _, admin = secured()
    ran = 0
    for block in re.findall(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for statement in re.sub(r"--[^\n]*", "", block).split(";"):
            if statement.strip():
                admin.query(statement)
                ran += 1
    assert ran > 15


# --- whose is what

def test_handles_tickets_and_cancelling_are_ones_own(secured):
    server, admin = secured()
    user(admin, "bob"), user(admin, "ann")
    bob, ann = Raw(server.url), Raw(server.url)
    bob.log_in("bob"), ann.log_in("ann")
    handle, info = bob.prepare("SELECT 1 AS x"), bob.info("SELECT 2 AS x")
    ticket = info.endpoints[0].ticket
    cancel = field(1, info.serialize())
    for name, steal in {
        "handle": lambda: ann.prepared_info(handle),
        "ticket": lambda: ann.get(ticket),
        "cancel": lambda: ann.act("CancelFlightInfo", cancel),
        "renew": lambda: ann.act("RenewFlightEndpoint", field(1, field(1, field(1, ticket.ticket)))),
    }.items():
        how, said = outcome(steal)
        assert how in ("NotFound", "other") and ("unknown" in said or "no statement" in said), (name, how, said)
    ann.act("ClosePreparedStatement", any_("ActionClosePreparedStatementRequest", field(1, handle)))
    assert bob.get(bob.prepared_info(handle).endpoints[0].ticket).to_pylist() == [{"x": 1}], "another one's closing does not close it"
    assert bob.get(ticket).to_pylist() == [{"x": 2}]
    # Of one's own, from another session as well.
    other = Raw(server.url)
    other.log_in("bob")
    assert other.get(ticket).to_pylist() == [{"x": 2}]


def test_a_sessions_name_is_no_key(secured):
    server, admin = secured()
    user(admin, "bob")

    def options(header, cookie):
        from pyarrow.flight import Action, FlightCallOptions
        options = FlightCallOptions(headers=[(b"authorization", header.encode()), (b"cookie", f"tidegate_session={cookie}".encode())])
        return lambda name, body: list(Raw(server.url).client.do_action(Action(name, body), options))

    admins, bobs = options(basic("admin", PASSWORD), "one"), options(basic("bob", PASSWORD), "one")
    setting = field(1, "tidegate.device") + field(2, field(1, "cpu"))
    admins("SetSessionOptions", field(1, setting))
    assert b"tidegate.device" in admins("GetSessionOptions", b"")[0].body.to_pybytes()
    assert b"tidegate.device" not in bobs("GetSessionOptions", b"")[0].body.to_pybytes()


def test_killing_is_for_ones_own(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    admin.query(source(broker))
    bob, ann = user(admin, "bob", "SELECT ON s"), user(admin, "ann", "SELECT ON s")
    following = tidegate.Subscription(bob, "SELECT * FROM s EMIT CHANGES")
    listed = lambda who: [row for row in who.query("SHOW QUERIES") if "EMIT" in row["sql"]]
    [query] = tidegate.settle(lambda: listed(admin), None, 0)
    assert query["user"] == "bob" and listed(ann) == [] and len(listed(bob)) == 1
    assert ann.query("SELECT sql FROM system.queries WHERE sql LIKE '%EMIT%' AND \"user\" <> 'ann'") == []
    assert "no query" in ann.refusal(f"KILL QUERY {query['id']}")
    bob.query(f"KILL QUERY {query['id']}")
    assert following.ended.wait(10) and "was killed" in str(following.error)


def test_owners(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    ann, bob = user(admin, "ann", "CREATE ON SCHEMA public"), user(admin, "bob", "CREATE ON SCHEMA public")
    ann.query(source(broker))
    assert "is taken" in bob.refusal(source(broker)) and "source" not in bob.refusal(source(broker)).split("is taken")[0]
    ann.query("GRANT SELECT ON s TO bob")
    bob.query("CREATE VIEW p AS SELECT a, current_user AS reader FROM s")
    bob.query("CREATE CONTINUOUS VIEW v AS SELECT a FROM s")
    bob.query("GRANT SELECT ON p TO ann")
    assert outcome(lambda: ann.query("DROP SOURCE s CASCADE"))[0] == "PermissionDenied", "what others own goes with it"
    assert "owns v" in admin.refusal("DROP USER bob") or "owns p" in admin.refusal("DROP USER bob")
    broker.send("walk", [(0, b'{"a": 1, "ts": "2024-01-01T00:00:00Z"}')])
    assert ann.settle("SELECT reader FROM p", "ann") == "ann", "current_user is who reads"
    # A plain view reads with its owner's rights, now.
    admin.query("REVOKE SELECT ON s FROM bob")
    assert "owner may no longer read" in ann.refusal("SELECT * FROM p")
    assert ann.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'") == [{"table_name": "s"}]
    assert outcome(lambda: bob.query("ALTER VIEW p OWNER TO ann"))[0] == "PermissionDenied"
    admin.query("ALTER VIEW p OWNER TO ann")
    admin.query("ALTER VIEW v OWNER TO ann")
    assert ann.value("SELECT a FROM p") == 1
    admin.query("DROP USER bob")
    server.restart()
    ann = As(server, "ann")
    ann.query("DROP SOURCE s CASCADE")
    # What was granted on it is gone with it.
    assert As(server, "admin").query("SHOW GRANTS") == [{"grantee": "ann", "privilege": "CREATE", "kind": "schema", "object": "public"}]


def test_what_others_make_of_it_is_not_named(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    ann, bob = user(admin, "ann", "CREATE ON SCHEMA public"), user(admin, "bob", "CREATE ON SCHEMA public")
    ann.query(source(broker))
    ann.query("CREATE CONTINUOUS VIEW v AS SELECT a FROM s")
    ann.query("CREATE VIEW p AS SELECT a FROM s")
    ann.query("GRANT SELECT ON v TO bob")
    ann.query("GRANT SELECT ON p TO bob")
    bob.query("CREATE CONTINUOUS VIEW of_bob AS SELECT a FROM v")
    bob.query("CREATE VIEW also_of_bob AS SELECT a FROM p")
    for sql in ("PAUSE VIEW v", "DROP VIEW v", "DROP VIEW v CASCADE", "DROP SOURCE s CASCADE", "DROP VIEW p", "CREATE OR REPLACE VIEW p AS SELECT 1 AS b",
                "CREATE OR REPLACE CONTINUOUS VIEW v AS SELECT a AS b FROM s", "CREATE OR REPLACE CONTINUOUS VIEW v AS SELECT a FROM of_bob",
                "EXPLAIN CREATE OR REPLACE CONTINUOUS VIEW v AS SELECT a AS b FROM s"):
        assert "of_bob" not in ann.refusal(sql).replace("public.of_bob' not found", ""), sql
    assert "of_bob" in admin.refusal("PAUSE VIEW v") and "of_bob" in admin.refusal("DROP VIEW v")


def test_prepared_then_revoked(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    admin.query(source(broker))
    user(admin, "bob", "SELECT ON s")
    bob = Raw(server.url)
    bob.log_in("bob")
    handle = bob.prepare("SELECT count(*) AS n FROM s")
    ticket = bob.info("SELECT count(*) AS n FROM s").endpoints[0].ticket
    assert bob.get(bob.prepared_info(handle).endpoints[0].ticket).to_pylist() == [{"n": 0}]
    admin.query("REVOKE SELECT ON s FROM bob")
    for name, use in {"handle": lambda: bob.get(bob.prepared_info(handle).endpoints[0].ticket), "ticket": lambda: bob.get(ticket)}.items():
        how, said = outcome(use)
        assert how != "ok" and "'tidegate.public.s' not found" in said, name
    admin.query("GRANT SELECT ON s TO bob")
    assert bob.get(ticket).to_pylist() == [{"n": 0}]


def test_files(secured, tmp_path):
    (tmp_path / "t.csv").write_text("x\n1\n")
    server, admin = secured("--allow-path", tmp_path)
    bob = user(admin, "bob")
    sql = f"SELECT x FROM '{tmp_path}/t.csv'"
    assert admin.value(sql) == 1
    how, said = outcome(lambda: bob.query(sql))
    assert how == "PermissionDenied" and "READ FILES" in said
    how, said = outcome(lambda: bob.query("SELECT x FROM '/etc/passwd'"))
    assert how == "PermissionDenied" and str(tmp_path) not in said, "which folders there are is nobody's business"
    admin.query("GRANT READ FILES TO bob")
    assert bob.value(sql) == 1


# --- the matrix

#: What each caller was granted: {object: privileges}; "*" is the schema. The owner has made everything; the admin may everything.
CALLERS = {
    "admin": "everything",
    "owner": "everything",
    "nothing": {},
    "reads_s": {"s": {"SELECT"}},
    "reads_v": {"v": {"SELECT"}},
    "reads_p": {"p": {"SELECT"}},
    "reads_s_and_v": {"s": {"SELECT"}, "v": {"SELECT"}},
    "inserts_s": {"s": {"INSERT"}},
    "inserts_v": {"v": {"INSERT"}},
    "all_s": {"s": {"SELECT", "INSERT"}},
    "reads_schema": {"*": {"SELECT"}},
    "inserts_schema": {"*": {"INSERT"}},
    "creates": {"*": {"CREATE"}},
    "creates_reads_s": {"*": {"CREATE"}, "s": {"SELECT"}},
    "all_schema": {"*": {"SELECT", "INSERT", "CREATE"}},
    "by_role": {"v": {"SELECT"}},
    "lost_all": {},
}
OBJECTS = {"s": "source", "v": "continuous view", "p": "view"}
STATEMENTS = [
    "select", "subscribe", "explain", "explain analyze", "explain view", "analyze view", "explain create", "show create", "drop", "drop cascade", "alter", "pause",
    "resume", "insert", "create over", "create continuous over", "replace", "grant", "errors", "late", "late data to", "system", "metadata", "information schema", "show",
    "execute schema", "describe",
]


def text_of(statement, name, kind, caller):
    """The statement about an object; where it is allowed it does nothing that another cell would notice."""
    noun = "SOURCE" if kind == "source" else "VIEW"
    return {
        "select": f"SELECT * FROM {name} LIMIT 1",
        "subscribe": f"SELECT * FROM {name} EMIT CHANGES",
        "explain": f"EXPLAIN SELECT * FROM {name}",
        "explain analyze": f"EXPLAIN ANALYZE SELECT * FROM (SELECT * FROM {name} LIMIT 0)",
        "explain view": f"EXPLAIN VIEW {name}",
        "analyze view": f"EXPLAIN ANALYZE VIEW {name} FOR INTERVAL '1 millisecond'",
        "explain create": f"EXPLAIN CREATE CONTINUOUS VIEW fresh AS SELECT a FROM {name}",
        "show create": f"SHOW CREATE TABLE {name}",
        # What depends on each of them keeps it.
        "drop": f"DROP {noun} {name}",
        "drop cascade": f"DROP {noun} {name} CASCADE",
        "alter": f"ALTER SOURCE {name} ADD COLUMN IF NOT EXISTS a BIGINT" if kind == "source" else f"ALTER VIEW {name} SET (memory_limit = '1 GiB')",
        "pause": f"PAUSE VIEW {name}",
        "resume": f"RESUME VIEW {name}",
        "insert": f"INSERT INTO {name} VALUES (1)",
        "create over": f"CREATE VIEW over_{caller} AS SELECT a FROM {name}",
        "create continuous over": f"CREATE CONTINUOUS VIEW over_{caller} AS SELECT a FROM {name}",
        "replace": f"CREATE OR REPLACE VIEW {name} AS SELECT nothing_there",
        "grant": f"GRANT INSERT ON {name} TO somebody",
        "errors": f"SELECT * FROM \"{name}$errors\"",
        "late": f"SELECT * FROM \"{name}$late\"",
        "late data to": f"SELECT * FROM late_{name}",
        "execute schema": f"SELECT * FROM {name}",
        "describe": f"DESCRIBE {name}",
    }.get(statement)


def applies(statement, name):
    """Whether the cell means anything."""
    if statement == "errors":
        return name == "s"
    if statement in ("late", "late data to"):
        return name == "v"
    return not (statement == "drop cascade")


def expected(caller, statement, name):
    """ "ok": authorised (it may still be wrong for another reason), "missing": as if there were no such object, "denied": told so.

    Written from docs/security.md, not from the code."""
    grants = CALLERS[caller]
    if grants == "everything":
        return "ok"
    on = lambda thing: grants.get(thing, set()) | (grants.get("*", set()) - {"CREATE"})
    creates = "CREATE" in grants.get("*", set())
    visible, readable = bool(on(name)), "SELECT" in on(name)
    reading = "ok" if readable else "denied" if visible else "missing"
    match statement:
        case "select" | "subscribe" | "explain" | "explain analyze" | "explain view" | "analyze view" | "explain create" | "errors" | "execute schema" | "describe":
            return reading
        case "information schema":
            return "ok" if readable else "missing"
        case "late" | "late data to":
            return "missing" if readable and "SELECT" not in on("s") else reading
        case "show create" | "system" | "metadata" | "show":
            return "ok" if visible else "missing"
        case "insert":
            return "ok" if "INSERT" in on(name) else "denied" if visible else "missing"
        case "drop" | "alter" | "pause" | "resume" | "grant":
            return "denied" if visible else "missing"
        case "create over" | "create continuous over":
            return reading if creates else "denied"
        case "replace":
            # To those who don't see it its name is taken, which can't be hidden.
            return "denied" if visible or not creates else "taken"


def seen(caller, statement, name, kind, as_):
    """What happens: as `expected`, and the sentence."""
    sql = text_of(statement, name, kind, caller)
    if statement == "metadata":
        with as_.connect() as connection:
            tree = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        tables = [t["table_name"] for c in tree for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]
        return ("ok" if name in tables else "missing"), tables
    if statement == "information schema":
        rows = as_.query(f"SELECT table_name FROM information_schema.tables WHERE table_name = '{name}' UNION ALL "
                         f"SELECT table_name FROM information_schema.columns WHERE table_name = '{name}'")
        return ("ok" if rows else "missing"), rows
    if statement == "system":
        table = "sources" if kind == "source" else "views"
        rows = as_.query(f"SELECT name FROM system.{table} WHERE name = '{name}'")
        if kind == "source":
            also = as_.query(f"SELECT source FROM system.partitions WHERE source = '{name}'")
            assert bool(also) == bool(rows)
        return ("ok" if rows else "missing"), rows
    if statement == "show":
        rows = [row for table in ("TABLES", "SOURCES", "VIEWS") for row in as_.query(f"SHOW {table}") if row["name"] == name]
        return ("ok" if rows else "missing"), rows
    with as_.connect() as connection, connection.cursor() as cursor:
        def ask():
            if statement == "execute schema":
                return cursor.adbc_execute_schema(sql)
            cursor.execute(sql)
            return "subscribed" if statement == "subscribe" else cursor.fetchall()

        how, said = outcome(ask)
        if statement in ("create over", "create continuous over") and how == "ok":
            cursor.execute(f"DROP VIEW over_{caller}")
    # An answer may say so of something else: EXPLAIN VIEW of a GPU.
    said_missing = how == "NotFound" or how != "ok" and ("not found" in str(said) or "there is no" in str(said))
    if how == "PermissionDenied":
        return "denied", said
    if how == "AlreadyExists" and "is taken" in said:
        return "taken", said
    return ("missing" if said_missing else "ok"), said


def test_the_matrix_of_grants(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    for caller in list(CALLERS)[1:] + ["somebody"]:
        user(admin, caller)
    admin.query("GRANT CREATE ON SCHEMA public TO owner")
    owner = As(server, "owner")
    owner.query(source(broker))
    owner.query("CREATE CONTINUOUS VIEW v AS SELECT a, window_end FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY a, window_end EMIT ON WINDOW CLOSE LATE DATA TO late_v")
    owner.query("CREATE VIEW p AS SELECT a FROM s")
    owner.query("CREATE CONTINUOUS VIEW above_v AS SELECT a FROM v")
    owner.query("CREATE VIEW above_p AS SELECT a FROM p")
    broker.send("walk", [(0, b'{"a": 1, "ts": "2024-01-01T00:00:00Z"}'), (0, b"bad"), (0, b'{"a": 1, "ts": "2024-01-01T00:10:00Z"}')])
    assert admin.settle("SELECT count(*) FROM v", 1) == 1
    admin.query("CREATE ROLE viewer")
    admin.query("GRANT SELECT ON v TO viewer")
    admin.query("GRANT viewer TO by_role")
    for caller, grants in CALLERS.items():
        if grants != "everything" and caller != "by_role":
            for thing, privileges in grants.items():
                admin.query(f"GRANT {', '.join(sorted(privileges))} ON {'SCHEMA public' if thing == '*' else thing} TO {caller}")
    admin.query("GRANT ALL ON SCHEMA public TO lost_all")
    admin.query("GRANT ALL ON v TO lost_all")
    admin.query("REVOKE ALL ON SCHEMA public FROM lost_all")
    admin.query("REVOKE ALL ON v FROM lost_all")

    wrong, cells = [], 0
    for caller in CALLERS:
        as_ = As(server, "admin" if caller == "admin" else caller)
        for name, kind in OBJECTS.items():
            for statement in STATEMENTS:
                if not applies(statement, name):
                    continue
                cells += 1
                want = expected(caller, statement, name)
                got, said = seen(caller, statement, name, kind, as_)
                if got != want:
                    wrong.append(f"{caller}, {statement}, {name}: {got} instead of {want}: {str(said)[:200]}")
                elif got == "missing" and isinstance(said, str):
                    # As if it weren't there: in the same words as for what isn't.
                    _, none = seen(caller, statement, "zz", kind, as_)
                    if str(none).replace("late_zz", f"late_{name}").replace("zz", name) != said:
                        wrong.append(f"{caller}, {statement}, {name}: says {said!r} where there is one and {none!r} where there is none")
        as_.disconnect()
    assert not wrong, f"{len(wrong)} of {cells} cells:\n" + "\n".join(wrong)
    assert cells > 1000
    # Settings are the admins' alone.
    assert len(admin.query("SELECT * FROM system.settings")) > 10
    settings = [row["name"] for row in As(server, "reads_schema").query("SELECT name FROM system.settings")]
    assert "tidegate.device" in settings and all(name.startswith("tidegate.") for name in settings), settings
    # Bad records are what was in the topic.
    assert len(As(server, "reads_s").query("SELECT * FROM system.errors")) == 1
    assert As(server, "inserts_s").query("SELECT * FROM system.errors") == []
    assert As(server, "reads_v").query("SELECT * FROM system.pipelines") == []
    assert {row["view"] for row in As(server, "reads_v").query("SELECT DISTINCT view FROM system.operators")} == {"v"}


def test_cascade_by_the_owner(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured()
    ann = user(admin, "ann", "CREATE ON SCHEMA public")
    ann.query(source(broker))
    ann.query("CREATE VIEW p AS SELECT a FROM s")
    bob = user(admin, "bob", "SELECT ON SCHEMA public")
    assert outcome(lambda: bob.query("DROP SOURCE s CASCADE"))[0] == "PermissionDenied"
    ann.query("DROP SOURCE s CASCADE")
    assert admin.query("SHOW TABLES") == []


# --- kept

def test_users_outlive_kill_9(secured):
    server, admin = secured()
    for round_ in range(3):
        stop = threading.Event()

        def change(n=round_):
            changing, at = As(server, "admin"), 0
            while not stop.is_set():
                try:
                    changing.query(f"CREATE ROLE r{n}_{at}")
                    changing.query(f"GRANT SELECT ON SCHEMA public TO r{n}_{at}")
                except Exception:
                    return
                at += 1

        thread = threading.Thread(target=change, daemon=True)
        thread.start()
        time.sleep(0.5)
        server.process.kill()
        stop.set()
        server.start()
        admin = As(server, "admin")
        roles = [row["name"] for row in admin.query("SHOW USERS") if row["kind"] == "role"]
        granted = {row["grantee"] for row in admin.query("SHOW GRANTS")}
        assert roles and granted <= set(roles) and len(set(roles) - granted) <= round_ + 1
    for name in ("access.json", "token.key"):
        assert (server.data / name).stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_of_users_lets_nobody_in(secured, tmp_path):
    server, admin = secured()
    server.stop()
    (server.data / "access.json").write_text("{")
    status, _, err = finished(tmp_path, "serve", "--listen", "127.0.0.1:0", "--data-dir", server.data)
    assert status != 0 and "access.json" in err and "panicked" not in err


def test_users_on_the_command_line(serve, tmp_path):
    data = tmp_path / "data"

    def run(*arguments, password=None):
        import subprocess
        done = subprocess.run([tidegate.BINARY, "user", *arguments, "--data-dir", data], input=password, capture_output=True, text=True, env=tidegate.environment({}), timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert run("list") == (0, "")
    status, said = run("add", "bob", "--password-stdin", password=PASSWORD)
    assert status != 0 and "--admin" in said
    status, said = run("add", "bob", "--admin", password="")
    assert status != 0 and "--password-stdin" in said
    status, said = run("add", "bob", "--admin", "--password-stdin", password="short\n")
    assert status != 0 and "at least 8" in said
    assert run("add", "bob", "--admin", "--password-stdin", password=PASSWORD + "\n")[0] == 0
    assert run("add", "ann", "--password-stdin", password=PASSWORD + "\n")[0] == 0
    assert run("list") == (0, "ann\nbob  admin\n")
    status, said = run("remove", "bob")
    assert status != 0 and "one admin has to stay" in said
    server = tidegate.Server(tmp_path)
    server.start()
    try:
        assert As(server, "bob").value("SELECT current_user") == "bob"
        status, said = run("add", "eve", "--password-stdin", password=PASSWORD)
        assert status != 0 and "CREATE USER" in said
        environment = {"url": server.url, "user": "bob", "password": PASSWORD}
        status, out, err = finished(tmp_path, "sql", "--format", "csv", "-c", "SELECT current_user AS u", settings=environment)
        assert (status, out.split()) == (0, ["u", "bob"]), err
        status, _, err = finished(tmp_path, "sql", "-c", "SELECT 1", settings=environment | {"password": "wrong"})
        assert status != 0 and "invalid credentials" in err
        status, _, err = finished(tmp_path, "sql", "-c", "SELECT 1", settings={"url": server.url})
        assert status != 0 and "credentials are needed" in err
        token = Raw(server.url).log_in("bob").removeprefix("Bearer ")
        assert finished(tmp_path, "sql", "-c", "SELECT 1", settings={"url": server.url, "token": token})[0] == 0
    finally:
        server.close()
    assert run("add", "bob", "--password-stdin", password="another horse")[0] == 0
    assert run("remove", "ann")[0] == 0
    status, said = run("remove", "bob")
    assert status == 0 and "whoever reaches the server" in said


# --- secrets

def test_secrets_are_nowhere(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured(log="tidegate=trace")
    secret, hidden = "s3cr3t-of-kafka", "h0rse-of-bob"
    declared = source(broker).replace("format = 'json'", f"format = 'json', 'properties.sasl.password' = '{secret}'")
    admin.query(declared)
    shown = admin.query("SHOW CREATE SOURCE s")[0]["statement"]
    assert "'properties.sasl.password' = '***'" in shown and broker.bootstrap in shown
    admin.query(f"CREATE USER bob WITH PASSWORD '{hidden}'")
    said = [admin.refusal(sql) for sql in (
        f"CREATE USER bob PASSWORD '{hidden}'", f"CREATE USER bob WITH PASSWORD '{hidden}' '{hidden}'", f"CREATE USER bob WITH PASSWORD '{hidden}'",
        f"ALTER USER nobody WITH PASSWORD '{hidden}'", f"ALTER USER bob PASSWORD '{hidden}'", f"CREAT USER bob WITH PASSWORD '{hidden}'",
        declared, declared.replace("CREATE SOURCE s", "CREATE SOURCE t").replace("sasl.password", "sasl.oauthbearer.client.secret"),
        declared.replace("CREATE SOURCE s", "CREATE SOURCE t").replace("'properties.sasl.password' =", "'properties.sasl.password'"),
        declared.replace("CREATE SOURCE s", "CREATE SOURCE t").replace("properties.sasl.password", "sasl.password"),
    )]
    As(server, "bob", hidden).query("SELECT 1")
    said += [str(admin.query(f"SELECT * FROM system.{table}")) for table in ("sources", "queries", "settings", "views")]
    said += [server.process.err.read_text(), server.process.out.read_text(), (server.data / "access.json").read_text()]
    for text in said:
        assert secret not in text and hidden not in text and PASSWORD not in text, text[:500]
    # It is still what it was.
    server.restart()
    assert As(server, "admin").query("SHOW CREATE SOURCE s")[0]["statement"] == shown
    kept = (server.data / "catalog.json").read_text()
    assert secret not in kept and "'properties.sasl.password' = '***'" in kept and '"sealed"' in kept


def test_audit(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured(log_format="json")
    bob = user(admin, "bob")
    admin.query(source(broker))
    bob.refusal("SELECT * FROM s")
    bob.refusal("DROP SOURCE s")
    outcome(lambda: As(server, "bob", "wrong password").query("SELECT 1"))
    lines = [json.loads(line) for line in server.process.err.read_text().splitlines()]
    lines = [tuple(line[key].strip('"') for key in ("user", "action", "object", "outcome")) for line in lines if line.get("target") == "tidegate::audit"]
    for wanted in [("admin", "login", "password", "done"), ("admin", "create user", "bob", "done"), ("admin", "create source", "s", "done"),
                   ("bob", "read", "s", "denied"), ("bob", "change", "s", "denied"), ("bob", "login", "password", "denied")]:
        assert wanted in lines, (wanted, lines)


# --- TLS

def tls(server, ca, **more):
    return {"adbc.flight.sql.client_option.tls_root_certs": ca} | more


def test_self_signed(secured, tmp_path):
    server, _ = secured("--tls-self-signed")
    assert server.url.startswith("grpc+tls://127.0.0.1:")
    ca = (server.data / "tls/ca.pem").read_text()
    assert str(server.data / "tls/ca.pem") in server.process.out.read_text()
    trusting = As(server, "admin", **tls(server, ca))
    assert trusting.value("SELECT current_user") == "admin"
    raw = Raw(server.url, tls_root_certs=ca)
    assert raw.log_in("admin") and raw.query("SELECT 1 AS x") == [{"x": 1}]
    assert "certificate" in outcome(lambda: As(server, "admin", **tls(server, Authority().pem())).query("SELECT 1"))[1]
    assert outcome(lambda: As(server, "admin").query("SELECT 1"))[0] != "ok"
    plain = type("Plain", (), {"url": server.url.replace("grpc+tls", "grpc")})
    assert outcome(lambda: As(plain, "admin").query("SELECT 1"))[0] != "ok"
    environment = {"url": server.url, "user": "admin", "password": PASSWORD}
    status, out, err = finished(tmp_path, "sql", "--tls-ca", server.data / "tls/ca.pem", "--format", "csv", "-c", "SELECT current_user AS u", settings=environment)
    assert (status, out.split()) == (0, ["u", "admin"]), err
    assert finished(tmp_path, "sql", "-c", "SELECT 1", settings=environment)[0] != 0
    server.restart()
    assert (server.data / "tls/ca.pem").read_text() == ca
    assert As(server, "admin", **tls(server, ca)).value("SELECT 1") == 1


def test_mutual_tls(secured, tmp_path):
    authority, other = Authority(), Authority()
    cert, key = authority.sign("server")
    for name, text in {"cert": cert, "key": key, "ca": authority.pem()}.items():
        (tmp_path / name).write_text(text)
    server, _ = secured("--tls-cert", tmp_path / "cert", "--tls-key", tmp_path / "key", "--tls-client-ca", tmp_path / "ca")

    def client(signer):
        cert, key = signer.sign("client", server=False)
        return {"adbc.flight.sql.client_option.mtls_cert_chain": cert, "adbc.flight.sql.client_option.mtls_private_key": key}

    ask = lambda more: outcome(lambda: As(server, "admin", **tls(server, authority.pem(), **more)).value("SELECT 1"))
    assert ask(client(authority)) == ("ok", 1)
    assert ask(client(other))[0] != "ok" and ask({})[0] != "ok"
    (tmp_path / "client.pem").write_text(authority.sign("client", server=False)[0])
    cert, key = authority.sign("client", server=False)
    (tmp_path / "client.pem").write_text(cert), (tmp_path / "client.key").write_text(key)
    arguments = ("--tls-ca", tmp_path / "ca", "--tls-cert", tmp_path / "client.pem", "--tls-key", tmp_path / "client.key", "-c", "SELECT 1")
    status, _, err = finished(tmp_path, "sql", *arguments, settings={"url": server.url, "user": "admin", "password": PASSWORD})
    assert status == 0, err


def test_certificates_are_read_again_without_dropping_connections(secured, tmp_path):
    old, new = Authority("old"), Authority("new")

    def write(authority):
        cert, key = authority.sign("server")
        (tmp_path / "cert").write_text(cert), (tmp_path / "key").write_text(key)

    write(old)
    server, _ = secured("--tls-cert", tmp_path / "cert", "--tls-key", tmp_path / "key")
    trusts = lambda authority: As(server, "admin", **tls(server, authority.pem()))
    before = trusts(old)
    assert before.value("SELECT 1") == 1
    (tmp_path / "cert").write_text("nonsense")
    server.process.child.send_signal(signal.SIGHUP)
    logged = lambda words: words in server.process.err.read_text()
    assert tidegate.settle(lambda: logged("stay as they are"), True) is True
    assert trusts(old).value("SELECT 1") == 1
    write(new)
    server.process.child.send_signal(signal.SIGHUP)
    assert tidegate.settle(lambda: logged("were read again"), True) is True
    assert before.value("SELECT 2") == 2, "who is connected stays"
    assert trusts(new).value("SELECT 1") == 1
    assert outcome(lambda: trusts(old).value("SELECT 1"))[0] != "ok"


def test_a_client_that_does_not_shake_hands_holds_up_nobody(secured):
    import socket
    server, _ = secured("--tls-self-signed")
    port = int(server.url.rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert As(server, "admin", **tls(server, (server.data / "tls/ca.pem").read_text())).value("SELECT 1") == 1
    for connection in silent:
        connection.close()


def test_other_addresses_need_users(serve, tmp_path):
    def refused(*arguments):
        status, _, err = finished(tmp_path, "serve", "--data-dir", tmp_path / "open", *arguments)
        assert status != 0 and "without users only loopback" in err and "--insecure" in err, err

    refused("--listen", "0.0.0.0:0")
    refused("--listen", "127.0.0.1:0", "--http", "0.0.0.0:0")
    process = tidegate.Process(tmp_path, "serve", "--listen", "0.0.0.0:0", "--data-dir", tmp_path / "insecure", "--insecure")
    process.wait_for("listening on ")
    assert "INSECURE: whoever reaches the port" in process.err.read_text()
    process.kill()
    process = tidegate.Process(tmp_path, "serve", "--listen", "0.0.0.0:0", "--data-dir", tmp_path / "users", settings={"admin_password": PASSWORD})
    port = process.wait_for("listening on ").rsplit(":", 1)[1]
    assert "without TLS" in process.err.read_text()
    assert As(type("There", (), {"url": f"grpc://127.0.0.1:{port}"}), "admin").value("SELECT 1") == 1
    process.kill()


# --- HTTP

def get(url, header=None, context=None):
    request = urllib.request.Request(url, headers={"Authorization": header} if header else {})
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_http_asks_who_is_there(secured, embedded):
    broker = embedded(walk=1)
    server, admin = secured("--http", "127.0.0.1:0")
    url = server.process.wait_for("http on ")
    admin.query(source(broker))
    admin.query("CREATE CONTINUOUS VIEW v AS SELECT a FROM s")
    user(admin, "bob")
    assert get(url + "/healthz")[0] == 200 and get(url + "/readyz")[0] == 200
    assert get(url + "/metrics")[0] == 401
    assert get(url + "/metrics", basic("admin", "wrong"))[0] == 401
    status, text = get(url + "/metrics", basic("admin", PASSWORD))
    assert status == 200 and 'view="v"' in text
    status, text = get(url + "/metrics", Raw(server.url).log_in("bob"))
    assert status == 200 and 'view="v"' not in text and 'source="s"' not in text and "process_cpu" in text


def test_https(secured):
    server, _ = secured("--http", "127.0.0.1:0", "--tls-self-signed")
    url = server.process.wait_for("http on ")
    assert url.startswith("https://")
    context = ssl.create_default_context(cafile=server.data / "tls/ca.pem")
    assert get(url + "/healthz", context=context)[0] == 200
    assert get(url + "/metrics", basic("admin", PASSWORD), context=context)[0] == 200


# --- tokens of an issuer

def configured(tmp_path, jwks):
    path = tmp_path / "tidegate.toml"
    path.write_text(f"[auth.jwt]\nissuer = 'https://issuer.test'\naudience = 'tidegate'\njwks = '{jwks}'\nalgorithms = ['EdDSA']\nrole_claim = 'realm_access.roles'\n")
    return path


def test_tokens_of_an_issuer(secured, embedded, tmp_path):
    broker, issuer, other = embedded(walk=1), Issuer(), Issuer()
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [issuer.jwk()]}))
    server, admin = secured("--config", configured(tmp_path, tmp_path / "keys.json"))
    admin.query(source(broker))
    admin.query("CREATE ROLE reader")
    admin.query("CREATE ROLE maker")
    admin.query("GRANT SELECT ON s TO reader")
    admin.query("GRANT CREATE ON SCHEMA public TO maker")
    eve = lambda *roles, **claims: As(server, token=issuer.token(realm_access={"roles": list(roles)}, **claims))
    assert eve().value("SELECT current_user") == "eve"
    assert outcome(lambda: eve("admin", "unknown").query("SELECT * FROM s"))[0] == "NotFound"
    assert eve("reader").query("SELECT * FROM s") == []
    raw = Raw(server.url, "Bearer " + issuer.token())
    assert raw.query("SELECT current_user AS u") == [{"u": "eve"}]
    eve("reader", "maker").query("CREATE VIEW hers AS SELECT a FROM s")
    assert eve().query("SELECT * FROM hers") == [], "what one owns one may read"
    assert outcome(lambda: As(server, token=issuer.token(sub="mallory")).query("SELECT * FROM hers"))[0] == "NotFound"
    assert "owns hers" in admin.refusal(f"CREATE USER eve WITH PASSWORD '{PASSWORD}'")
    bad = {
        "another issuer": issuer.token(iss="https://other.test"),
        "another audience": issuer.token(aud="other"),
        "expired": issuer.token(exp=int(time.time()) - 100),
        "no end": issuer.token(exp=None),
        "not yet": issuer.token(nbf=int(time.time()) + 1000),
        "another key": other.token(),
        "alg none": text64({"alg": "none", "kid": "1"}) + "." + issuer.token().split(".")[1] + ".",
        "nobody": issuer.token(sub=""),
        "a user of ours": issuer.token(sub="admin"),
        "a role of ours": issuer.token(sub="reader"),
    }
    public = json.dumps(issuer.jwk())
    signed = text64({"alg": "HS256", "typ": "JWT", "kid": "1"}) + "." + issuer.token().split(".")[1]
    bad["the public key as a secret"] = signed + "." + text64(hmac.new(public.encode(), signed.encode(), hashlib.sha256).digest())
    for name, token in bad.items():
        how, said = outcome(lambda: As(server, token=token).query("SELECT 1"))
        assert (how, "invalid credentials" in said) == ("Unauthenticated", True), (name, said)


def test_keys_are_fetched_when_they_are_needed_and_not_more(secured, tmp_path):
    keys, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = json.dumps({"keys": [{"kty": "unheard of"}] + [key.jwk() for key in keys]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    publisher = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=publisher.serve_forever, daemon=True).start()
    try:
        first = Issuer("1")
        keys.append(first)
        server, _ = secured("--config", configured(tmp_path, f"http://127.0.0.1:{publisher.server_port}/keys"))
        for _ in range(5):
            assert As(server, token=first.token()).value("SELECT current_user") == "eve"
            assert outcome(lambda: As(server, token=Issuer("2").token()).query("SELECT 1"))[0] == "Unauthenticated"
        assert asked == ["/keys"], "made-up keys don't make the server ask again and again"
    finally:
        publisher.shutdown()


def test_rights_on_tables(secured, embedded):
    """Who may add rows, change them, upload, drop: owner and admins all, others what they were granted; to whom it is not there it is not there."""
    broker = embedded(walk=1)
    _, admin = secured()
    ann = user(admin, "ann", "CREATE ON SCHEMA public")
    reads, adds, both, none = user(admin, "reads"), user(admin, "adds"), user(admin, "both"), user(admin, "nobodys")
    ann.query("CREATE TABLE t (a BIGINT)")
    ann.query(source(broker))
    for name in ("t", "s"):
        for grant in (f"SELECT ON {name} TO reads", f"INSERT ON {name} TO adds", f"ALL ON {name} TO both"):
            ann.query(f"GRANT {grant}")

    def upload(who, mode, name="t"):
        with who.connect() as connection, connection.cursor() as cursor:
            return cursor.adbc_ingest(name, pa.table({"a": [7]}), mode=mode)

    def many(who):
        with who.connect() as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO t VALUES (?)", [(5,), (6,)])

    asked = {
        "read": lambda who: who.query("SELECT count(*) FROM t"),
        "insert": lambda who: who.query("INSERT INTO t VALUES (1)"),
        "insert many": many,
        "append": lambda who: upload(who, "append"),
        "produce": lambda who: who.query("INSERT INTO s (a, ts) VALUES (1, '2024-01-01T00:00:00')"),
        "delete": lambda who: who.query("DELETE FROM t WHERE a = 1"),
        "update": lambda who: who.query("UPDATE t SET a = 2 WHERE a = 1"),
        "truncate": lambda who: who.query("TRUNCATE TABLE t"),
        "overwrite": lambda who: who.query("INSERT OVERWRITE t SELECT a FROM t"),
        "replace": lambda who: upload(who, "replace"),
        "drop": lambda who: who.query("DROP TABLE t"),
        "make": lambda who: who.query("CREATE TABLE another (a BIGINT)"),
        "make of rows": lambda who: upload(who, "create", "another"),
        "listed": lambda who: len(who.query("SELECT name FROM system.tables")),
    }
    adding, reading = {"insert", "insert many", "append", "produce"}, {"read", "listed"}
    may = {"reads": reading, "adds": adding | {"listed"}, "both": adding | reading, "nobodys": set()}
    wrong = []
    for who, name in ((reads, "reads"), (adds, "adds"), (both, "both"), (none, "nobodys")):
        for what, ask in asked.items():
            got = outcome(lambda: ask(who))  # noqa: B023
            if what == "listed":
                right = got == ("ok", int("listed" in may[name]))
            elif what in may[name]:
                right = got[0] == "ok"
            elif name == "nobodys" and what not in ("make", "make of rows"):
                right = got[0] in ("NotFound", "PermissionDenied", "AlreadyExists") and "ann" not in got[1] and (got[0] == "NotFound" or what == "replace")
            else:
                right = got[0] == "PermissionDenied"
            if not right:
                wrong.append((name, what, got))
    assert not wrong, "\n".join(map(str, wrong))
    assert ann.value("SELECT count(*) FROM t") == 2 * 4
    assert ann.query("DELETE FROM t WHERE a = 1") is not None
    admin.query("ALTER TABLE t OWNER TO both")
    assert outcome(lambda: ann.query("DROP TABLE t"))[0] == "NotFound" and both.query("TRUNCATE TABLE t") is not None
    admin.query("ALTER TABLE t OWNER TO ann")
    ann.query("DROP TABLE t")
    # Another table of the name begins without grants.
    ann.query("CREATE TABLE t (a BIGINT)")
    assert outcome(lambda: reads.query("SELECT * FROM t"))[0] == "NotFound"
