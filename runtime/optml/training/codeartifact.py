"""The package index of an AWS CodeArtifact repository."""

from __future__ import annotations

from ..report import UserError
from . import s3


def variables(environment: dict[str, str]) -> dict[str, str]:
    """The index that CA_REPOSITORY_ARN names, with its token, for pip and uv; nothing where it names none.

    Variables, because a process list shows arguments, but not the environment of others. Raises UserError
    where the ARN, `arn:aws:codeartifact:REGION:ACCOUNT:repository/DOMAIN/REPOSITORY`, is none, or AWS gives
    no token.
    """
    arn = environment.get("CA_REPOSITORY_ARN")
    if not arn:
        return {}
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
    url = f"{scheme}://aws:{token}@{place}/simple/"
    return {"PIP_INDEX_URL": url, "UV_INDEX_URL": url}
