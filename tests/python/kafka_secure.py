"""An Apache Kafka that wants to know who is there: TLS with certificates made on the spot, every kind of login, an authorizer."""

import base64
import datetime
import http.server
import ipaddress
import json
import pathlib
import ssl
import threading
import time

from confluent_kafka.admin import (
    AclBinding, AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType, ScramCredentialInfo, ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

import kafka

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},TLS://127.0.0.1:{tls},MTLS://127.0.0.1:{mtls},SCRAM://127.0.0.1:{scram},PW://127.0.0.1:{pw},OAUTH://127.0.0.1:{oauth},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},TLS://127.0.0.1:{tls},MTLS://127.0.0.1:{mtls},SCRAM://127.0.0.1:{scram},PW://127.0.0.1:{pw},OAUTH://127.0.0.1:{oauth}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MTLS:SSL,SCRAM:SASL_SSL,PW:SASL_PLAINTEXT,OAUTH:SASL_PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.scram.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.pw.sasl.enabled.mechanisms=PLAIN
listener.name.pw.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="{ann}" user_bob="{bob}";
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.oauth.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file://{folder}/jwks.json
listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.audience=kafka
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:ann;User:CN=ann;User:oauth-app
allow.everyone.if.no.acl.found=false
log.dirs={folder}/log
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
connections.max.reauth.ms=4000
log.retention.check.interval.ms=1000
log.retention.ms=-1
"""

# What a test looks for everywhere, so nothing else may look like it.
PASSWORDS = {"ann": "pw-of-ann-71c3", "bob": "pw-of-bob-55e0"}
CLIENT = ("tidegate-app", "client-secret-9a41")


class Authority:
    """A certificate authority."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, None, 0, 30, True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _sign(self, name, key, issuer, begins, days, is_authority, address=None):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1 - begins))
            .not_valid_after(now + datetime.timedelta(days=days)).add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), True)
        )
        if address:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("localhost")]), False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name, begins=0, days=30, address=None):
        """A certificate and its key, both in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, self.certificate, begins, days, False, address)
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), private(key)


def private(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenEndpoint:
    """What an identity provider is to a client with credentials: over HTTPS, RS256."""

    def __init__(self, folder, authority):
        self.key = rsa.generate_private_key(65537, 2048)
        self.asked = []
        number = lambda n: base64url(n.to_bytes((n.bit_length() + 7) // 8, "big"))
        public = self.key.public_key().public_numbers()
        jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": number(public.n), "e": number(public.e)}
        (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        certificate, key = authority.issue("token endpoint", address="127.0.0.1")
        (folder / "endpoint.pem").write_text(certificate + key)
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                wanted = "Basic " + base64.b64encode(":".join(CLIENT).encode()).decode()
                right = self.headers.get("Authorization") == wanted
                endpoint.asked.append(right)
                answer = {"access_token": endpoint.token(), "token_type": "Bearer", "expires_in": 60} if right else {"error": "invalid_client"}
                body = json.dumps(answer).encode()
                self.send_response(200 if right else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "endpoint.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self):
        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        claims = {"iss": "tests", "sub": "oauth-app", "aud": "kafka", "iat": now, "exp": now + 60, "scope": "kafka"}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{base64url(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class SecureKafka(kafka.Kafka):
    """One broker with a listener for each kind of security. `bootstrap` is one without any, for the tests' own use."""

    def __init__(self, folder):
        super().__init__(folder)
        self.authority, self.other_authority = Authority("ca of the tests"), Authority("another ca")
        certificate, key = self.authority.issue("broker", address="127.0.0.1")
        (self.folder / "broker.pem").write_text(key + certificate)
        (self.folder / "ca.pem").write_text(self.authority.pem)
        self.tokens = TokenEndpoint(self.folder, self.authority)
        names = ["tls", "mtls", "scram", "pw", "oauth", "controller"]
        self.ports = dict(zip(names, kafka.free_ports(len(names))))
        self.properties.write_text(PROPERTIES.format(port=self.port, folder=self.folder, **self.ports, **PASSWORDS))
        self.format_arguments = []
        for name, password in PASSWORDS.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                self.format_arguments += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]

    def _java(self, *arguments, heap="256m"):
        java, *rest = super()._java(*arguments, heap=heap)
        return [java, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{self.folder}/jwks.json", *rest]

    def address(self, listener):
        return f"127.0.0.1:{self.ports[listener]}"

    def options(self, listener, user="ann", **more):
        """What a connection to a listener says, as a dictionary of options; `more` with `_` for `.`."""
        options = {"bootstrap.servers": self.address(listener)}
        if listener in ("tls", "mtls"):
            options |= {"security.protocol": "SSL", "ssl.ca.pem": self.authority.pem}
        if listener == "mtls":
            certificate, key = self.authority.issue(user)
            options |= {"ssl.certificate.pem": certificate, "ssl.key.pem": key}
        if listener == "scram":
            options |= {"security.protocol": "SASL_SSL", "ssl.ca.pem": self.authority.pem, "sasl.mechanism": "SCRAM-SHA-512"}
        if listener == "pw":
            options |= {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
        if listener in ("scram", "pw"):
            options |= {"sasl.username": user, "sasl.password": PASSWORDS[user]}
        if listener == "oauth":
            options |= {
                "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.token.endpoint.url": self.tokens.url,
                "sasl.oauthbearer.client.id": CLIENT[0], "sasl.oauthbearer.client.secret": CLIENT[1], "https.ca.pem": self.authority.pem,
            }
        options |= {key.replace("_", "."): value for key, value in more.items()}
        return {key: value for key, value in options.items() if value is not None}

    def allow(self, user, kind, name, operation):
        """Lets a user do something with a topic or group."""
        for future in self.admin.create_acls([self._acl(AclBinding, user, kind, name, operation)]).values():
            future.result(20)

    def forbid(self, user, kind, name, operation):
        """Takes that back."""
        for future in self.admin.delete_acls([self._acl(AclBindingFilter, user, kind, name, operation)]).values():
            future.result(20)

    @staticmethod
    def _acl(what, user, kind, name, operation):
        kind, operation = ResourceType[kind], AclOperation[operation]
        return what(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)

    def set_password(self, user, password):
        """Gives a SCRAM user, new or not, a password."""
        change = UserScramCredentialUpsertion(user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode())
        for future in self.admin.alter_user_scram_credentials([change]).values():
            future.result(20)


def with_options(options):
    """Options as SQL; a value `("SECRET", name)` is that secret's."""
    shown = lambda value: f"SECRET {value[1]}" if isinstance(value, tuple) else "'" + str(value).replace("'", "''") + "'"
    return ", ".join(f"'{key}' = {shown(value)}" for key, value in options.items())
