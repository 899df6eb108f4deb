"""A store that speaks S3, in a process of its own on loopback."""

import collections
import os
import subprocess
import sys
import time
import urllib.request

import boto3
import botocore.config

import kafka as kafka_module

BUCKET = "tidegate"
# What the server's environment says of the store, beside where it is.
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}


class Store:
    """The store: one bucket, held in memory, that remembers what was replaced. It can be stopped (`SIGSTOP`), but not started again with what it held."""

    def __init__(self, folder):
        [self.port] = kafka_module.free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        with open(folder / "s3.err", "wb") as log:
            arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.child = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        quick = botocore.config.Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 1})
        self.client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=KEYS["AWS_REGION"], config=quick,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.create_bucket(Bucket=BUCKET)
                self.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
                return
            except Exception as error:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError(f"the S3 store did not start: {(folder / 's3.err').read_text(errors='replace')[-2000:]}") from error
                time.sleep(0.1)

    def signal(self, number):
        """Sends its process a signal."""
        os.kill(self.child.pid, number)

    def refuse(self, everyone):
        """Whether it refuses all credentials, the tests' own among them."""
        body = b"0" if everyone else b"inf"
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", body, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request).close()

    def keys(self, *parts):
        """The names of all objects that hold each of these texts, in order."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        names = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(name for name in names if all(part in name for part in parts))

    def read(self, key):
        """An object's bytes."""
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key, data):
        """Replaces an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def create(self, key, data):
        """Creates an object; whether there was none."""
        try:
            self.client.put_object(Bucket=BUCKET, Key=key, Body=data, IfNoneMatch="*")
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True

    def _versions(self, kind):
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=BUCKET)
        return [(item["Key"], item["VersionId"]) for page in pages for item in page.get(kind, [])]

    def written(self):
        """How often each object was written, those among them that are gone."""
        return collections.Counter(key for key, _ in self._versions("Versions"))

    def clear(self):
        """Removes all objects, and forgets that they were."""
        for key, version in self._versions("Versions") + self._versions("DeleteMarkers"):
            self.client.delete_object(Bucket=BUCKET, Key=key, VersionId=version)

    def close(self):
        """Ends it; what it held is gone."""
        self.child.kill()
        self.child.wait()
