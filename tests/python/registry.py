"""A schema registry for tests: the part of Confluent's published HTTP interface that serialisers and Tidegate use, in memory, on a free port.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import base64
import json
import socket
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kafka as kafka_module


class Registry:
    """Starts at once. `user` and `password`: what a request must prove. `asked` lists the paths of all requests, `shown`
    what they said of who asks."""

    def __init__(self, user=None, password=None):
        self.port = kafka_module.free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.credentials = None if user is None else base64.b64encode(f"{user}:{password}".encode()).decode()
        # By id - 1: the schema as it was sent. Subjects: ids in the order of their versions.
        self.schemas, self.subjects, self.asked, self.shown = [], {}, [], []
        self.lock = threading.Lock()
        # Connections that clients keep for their next request.
        self.server, self.open = None, set()
        self.start()

    def start(self):
        """Begins to answer, at the address of before."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def setup(self):
                super().setup()
                registry.open.add(self.connection)

            def finish(self):
                registry.open.discard(self.connection)
                super().finish()

            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                path = urllib.parse.urlsplit(self.path).path
                registry.asked.append(path)
                registry.shown.append(self.headers.get("Authorization"))
                status, value = registry.respond([urllib.parse.unquote(part) for part in path.strip("/").split("/")], body, self.headers.get("Authorization"))
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        ThreadingHTTPServer.allow_reuse_address = True
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        """Answers no more; what it knows stays."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The client was faster.
                pass

    def register(self, subject, schema, references=()):
        """A new version of a subject, unless it is there: its id."""
        sent = {"schema": schema if isinstance(schema, str) else json.dumps(schema), "references": list(references)}
        return self.respond(["subjects", subject, "versions"], sent, self.credentials and f"Basic {self.credentials}")[1]["id"]

    def respond(self, path, body, authorization):
        if self.credentials is not None and authorization != f"Basic {self.credentials}":
            return 401, {"error_code": 40101, "message": "Unauthorized"}
        with self.lock:
            match path:
                case ["schemas", "ids", number]:
                    at = int(number) - 1
                    return (200, self.schema(at)) if 0 <= at < len(self.schemas) else (404, {"error_code": 40403, "message": f"Schema {number} not found"})
                case ["subjects"]:
                    return 200, sorted(self.subjects)
                case ["subjects", subject, "versions"] if body is not None:
                    at = self.known(body)
                    if at is None:
                        self.schemas.append(body)
                        at = len(self.schemas) - 1
                    versions = self.subjects.setdefault(subject, [])
                    if at not in versions:
                        versions.append(at)
                    return 200, {"id": at + 1, "version": versions.index(at) + 1, **self.schema(at)}
                case ["subjects", subject] if body is not None:
                    at = self.known(body)
                    if at is None or at not in self.subjects.get(subject, []):
                        return 404, {"error_code": 40403, "message": "Schema not found"}
                    return 200, self.version(subject, at)
                case ["subjects", subject, "versions", version]:
                    versions = self.subjects.get(subject)
                    if versions is None:
                        return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
                    number = len(versions) if version == "latest" else int(version)
                    if not 1 <= number <= len(versions):
                        return 404, {"error_code": 40402, "message": f"Version {version} not found."}
                    return 200, self.version(subject, versions[number - 1])
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def known(self, body):
        key = lambda schema: (schema["schema"], schema.get("schemaType", "AVRO"), json.dumps(schema.get("references", [])))
        return next((at for at, schema in enumerate(self.schemas) if key(schema) == key(body)), None)

    def schema(self, at):
        kept = self.schemas[at]
        answer = {"schema": kept["schema"]}
        if kept.get("schemaType", "AVRO") != "AVRO":
            answer["schemaType"] = kept["schemaType"]
        if kept.get("references"):
            answer["references"] = kept["references"]
        return answer

    def version(self, subject, at):
        return {"subject": subject, "id": at + 1, "version": self.subjects[subject].index(at) + 1, **self.schema(at)}
