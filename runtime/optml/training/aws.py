"""What training needs from AWS, through boto3: code and output in S3, a package index in CodeArtifact.

The AWS SDK finds the endpoint, the credentials and, unless the job names one, the region;
S3_ENDPOINT_URL overrides the endpoint of S3.
"""

from __future__ import annotations

import os
import sys

from .. import paths
from ..hints import Any
from ..report import UserError, log
from . import config, jsontext
from . import job as jobs


def client(service: str = "s3", region: str | None = None) -> Any:
    """A boto3 client, by default in the job's region. Raises UserError if it cannot be created, as
    without boto3."""
    if paths.DEPS not in sys.path:
        sys.path.append(paths.DEPS)
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise UserError(
            "this image cannot reach AWS: boto3 is missing; use cpu-train or cpu-serve"
        ) from error
    if not region:
        parameter = config.read("hyperparameters.json").get("sagemaker_region")
        region = jobs.region(os.environ, jsontext.decode(str(parameter or "")))
    endpoint = os.environ.get("S3_ENDPOINT_URL") if service == "s3" else None
    options = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 4})
    try:
        session = boto3.Session()
        region = region or session.region_name or "us-east-1"
        return session.client(service, region_name=region, endpoint_url=endpoint or None, config=options)
    except Exception as error:
        raise UserError(f"cannot set up a client of AWS {service}: {error}") from error


def download(uri: str, directory: str) -> str | None:
    """Download an `s3://` address into the directory: one object, or the objects under a prefix.

    Return the name of the file if it is one object, else None. Raises UserError.
    """
    bucket, key = parse(uri)
    s3 = client()
    try:
        if key and not key.endswith("/"):
            name = key.rpartition("/")[2]
            try:
                s3.download_file(bucket, key, f"{directory}/{name}")
                return name
            except Exception as error:
                if _code(error) not in ("404", "NoSuchKey"):
                    raise
        prefix = f"{key.rstrip('/')}/" if key else ""
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        names = [name for name in keys if not name.endswith("/")]
        for name in names:
            path = os.path.normpath(f"{directory}/{name[len(prefix) :]}")
            if not path.startswith(f"{directory}/"):
                raise UserError(
                    f"{uri} holds the key {name!r}, which lies outside the code directory; rename it"
                )
            os.makedirs(os.path.dirname(path), exist_ok=True)
            s3.download_file(bucket, name, path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(why(error, uri)) from error
    if not names:
        raise UserError(f"there is nothing at {uri}; check the bucket, the key and the region")
    log(f"fetched {len(names)} {'object' if len(names) == 1 else 'objects'} from {uri}")
    return None


def parse(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://bucket/key`. Raises UserError if it has no bucket."""
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise UserError(f"{uri!r} is no S3 address; write s3://BUCKET/KEY")
    return bucket, key


def why(error: Exception, uri: str) -> str:
    """One line: what went wrong at this address, and what to do."""
    code = _code(error) or _code(error.__context__)  # a failed upload wraps S3's error
    name = type(error).__name__
    if code in ("404", "NoSuchKey"):
        return f"there is nothing at {uri}; check the bucket, the key and the region"
    if code == "NoSuchBucket":
        return f"there is no bucket {parse(uri)[0]!r} (for {uri}); check its name and region"
    if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
        return f"access to {uri} is denied ({code}); give the job's role s3:GetObject and s3:ListBucket"
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return f"there are no AWS credentials to reach {uri}; give the job a role, or set AWS_ACCESS_KEY_ID"
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionError", "ProxyConnectionError"):
        return f"cannot reach S3 for {uri}: {error}; check the network, the region and S3_ENDPOINT_URL"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot store what {uri} holds: {error.strerror}; give the container more disk"
    return f"cannot transfer {uri}: {' '.join(str(error).split())}"


def _code(error: BaseException | None) -> str:
    """The error code of S3, such as NoSuchKey."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def package_index(environment: dict[str, str]) -> dict[str, str]:
    """The index of CA_REPOSITORY_ARN with its token, as variables for pip and uv; empty if that is not set.

    Not as arguments, which a process list shows to other users. Raises UserError if the ARN is malformed or
    AWS issues no token.
    """
    arn = environment.get("CA_REPOSITORY_ARN")
    if not arn:
        return {}
    region, account, domain, repository = repository_parts(arn)
    api = client("codeartifact", region)
    try:
        owner = {"domain": domain, "domainOwner": account}
        token = api.get_authorization_token(**owner)["authorizationToken"]
        endpoint = api.get_repository_endpoint(**owner, repository=repository, format="pypi")
    except Exception as error:
        raise UserError(f"CodeArtifact gives no access to {arn}: {' '.join(str(error).split())}") from error
    scheme, _, place = endpoint["repositoryEndpoint"].rstrip("/").partition("://")
    url = f"{scheme}://aws:{token}@{place}/simple/"
    return {"PIP_INDEX_URL": url, "UV_INDEX_URL": url}


def repository_parts(arn: str) -> tuple[str, str, str, str]:
    """Region, account, domain and name of `arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/NAME`."""
    try:
        _, _, service, region, account, resource = arn.split(":")
        kind, domain, repository = resource.split("/")
        if (service, kind) != ("codeartifact", "repository"):
            raise ValueError
    except ValueError:
        raise UserError(
            f"CA_REPOSITORY_ARN is {arn!r}; write arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/NAME"
        ) from None
    return region, account, domain, repository
