"""Callers with credentials, the protobuf messages that pyarrow.flight leaves to its callers, certificates and tokens of an issuer."""

import base64
import datetime
import ipaddress
import json
import time

import adbc_driver_flightsql.dbapi as flight
import pyarrow.flight
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import tidegate

PASSWORD = "correct horse"


class As(tidegate.Server):
    """A server as one user sees it: has `query` and its like, starts and stops nothing."""

    def __init__(self, server, user=None, password=PASSWORD, token=None, **options):
        self.server, self._connection = server, None
        if token is not None:
            options["adbc.flight.sql.authorization_header"] = f"Bearer {token}"
        elif user is not None:
            options |= {"username": user, "password": password}
        self.options = options

    @property
    def url(self):
        return self.server.url

    def connect(self, **options):
        return flight.connect(self.url, autocommit=True, db_kwargs=self.options | options)


def outcome(ask):
    """("ok", answer), or the name of the status with the server's sentence."""
    try:
        return "ok", ask()
    except Exception as error:
        text = str(error)
        for code in ("PermissionDenied", "NotFound", "Unauthenticated", "ResourceExhausted", "InvalidArgument", "AlreadyExists"):
            if f"({code};" in text or f"({code})" in text:
                return code, tidegate.message(error)
        # pyarrow has a class for some, and words for others.
        if isinstance(error, pyarrow.flight.FlightUnauthenticatedError) or "unauthenticated error" in text:
            return "Unauthenticated", text
        if "too many failed logins" in text:
            return "ResourceExhausted", text
        return "other", text


# --- Flight SQL over pyarrow.flight

def _varint(number):
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def field(number, data):
    """A field of bytes."""
    data = data.encode() if isinstance(data, str) else data
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def any_(name, body):
    return field(1, "type.googleapis.com/arrow.flight.protocol.sql." + name) + field(2, body)


def fields(data):
    """The fields of bytes in a message, by number."""
    found, at = {}, 0
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 2:
            length = varint()
            found[key >> 3], at = data[at:at + length], at + length
        else:
            varint()
    return found


class Raw:
    """A client that says just what it is told to."""

    def __init__(self, url, authorization=None, **options):
        self.client = pyarrow.flight.FlightClient(url.replace("grpc+tls://", "grpc+tls://").replace("grpc://", "grpc+tcp://"), **options)
        self.options = self.with_header(authorization)

    @staticmethod
    def with_header(authorization):
        headers = [] if authorization is None else [(b"authorization", authorization.encode())]
        return pyarrow.flight.FlightCallOptions(headers=headers)

    def log_in(self, user, password=PASSWORD):
        """The header that the server gives for a password, as text."""
        name, value = self.client.authenticate_basic_token(user, password)
        assert name == b"authorization"
        self.options = self.with_header(value.decode())
        return value.decode()

    def info(self, sql):
        return self.client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(any_("CommandStatementQuery", field(1, sql))), self.options)

    def prepare(self, sql):
        return fields(fields(self.act("CreatePreparedStatement", any_("ActionCreatePreparedStatementRequest", field(1, sql))))[2])[1]

    def prepared_info(self, handle):
        return self.client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(any_("CommandPreparedStatementQuery", field(1, handle))), self.options)

    def get(self, ticket):
        return self.client.do_get(ticket, self.options).read_all()

    def query(self, sql):
        return self.get(self.info(sql).endpoints[0].ticket).to_pylist()

    def act(self, name, body):
        results = list(self.client.do_action(pyarrow.flight.Action(name, body), self.options))
        return results[0].body.to_pybytes() if results else b""


def basic(user, password, padded=True):
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return "Basic " + (encoded if padded else encoded.rstrip("="))


# --- certificates

class Authority:
    """Signs certificates for servers and clients."""

    def __init__(self, name="test authority"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._build(self.name, self.key).add_extension(x509.BasicConstraints(True, 0), True).sign(self.key, hashes.SHA256())

    def _build(self, subject, key):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=30))

    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, name, server=True):
        """(certificate, key) in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self._build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False).add_extension(x509.ExtendedKeyUsage([usage]), False)
        pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        return pem, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


# --- tokens of an issuer

def text64(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """Signs JSON Web Tokens (EdDSA)."""

    def __init__(self, kid="1"):
        self.kid, self.key = kid, ed25519.Ed25519PrivateKey.generate()

    def jwk(self):
        public = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "alg": "EdDSA", "use": "sig", "x": text64(public)}

    def token(self, header=None, **claims):
        claims = {"iss": "https://issuer.test", "aud": "tidegate", "sub": "eve", "exp": int(time.time()) + 300} | claims
        signed = text64({"alg": "EdDSA", "typ": "JWT", "kid": self.kid} | (header or {})) + "." + text64(claims)
        return signed + "." + text64(self.key.sign(signed.encode()))
