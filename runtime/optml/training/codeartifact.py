"""The package index of an AWS CodeArtifact repository."""

from __future__ import annotations

from ..report import UserError
from . import s3


def index_url(arn: str) -> str:
    """The index for pip, with its token, of the repository that this ARN names:
    `arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/REPOSITORY`.

    Raises UserError where the ARN is none, or AWS gives no token. The result is a secret.
    """
    try:
        _, _, service, region, account, resource = arn.split(":")
        kind, domain, repository = resource.split("/")
        if (service, kind) != ("codeartifact", "repository"):
            raise ValueError
    except ValueError:
        raise UserError(
            f"CA_REPOSITORY_ARN is {arn!r}; write arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/NAME"
        ) from None
    client = s3.client("codeartifact", region)
    try:
        owner = {"domain": domain, "domainOwner": account}
        token = client.get_authorization_token(**owner)["authorizationToken"]
        endpoint = client.get_repository_endpoint(**owner, repository=repository, format="pypi")
    except Exception as error:
        raise UserError(f"CodeArtifact gives no access to {arn}: {' '.join(str(error).split())}") from error
    scheme, _, place = endpoint["repositoryEndpoint"].rstrip("/").partition("://")
    return f"{scheme}://aws:{token}@{place}/simple/"
