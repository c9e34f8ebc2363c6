"""Keys that the hosts of a job share without telling each other: they come from the facts of the job.

Whoever knows all of these facts can derive them, too, unless the user mixes in a secret of the job's own,
SAGEMAKER_MPI_SECRET.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from . import jsontext

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from .job import Job

SECRET = "SAGEMAKER_MPI_SECRET"


def seed(job: Job, role: str, *more: object) -> bytes:
    """32 bytes for this role."""
    # Nothing of the hyperparameters, unless the caller adds it: a host that cannot read them must be heard.
    facts = [
        role,
        job.arn,
        *map(os.environ.get, ("TRAINING_JOB_NAME", SECRET)),
        job.hosts,
        job.instance_groups,
        *more,
    ]
    # Slow on purpose (50 ms): what is proved by it is shown to all who listen, and they may try the facts.
    text = jsontext.dumps(facts).encode("ascii")
    return hashlib.scrypt(text, salt=b"optml", n=1 << 14, r=8, p=1, dklen=32)


class Key:
    """Proves to another host that this one knows the job."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def proof(self, challenge: str, words: str) -> str:
        """The proof that whoever says these words to this challenge knows the key."""
        return hmac.new(self._secret, f"{challenge}\n{words}".encode(), "sha256").hexdigest()

    def proves(self, proof: str, challenge: str, words: str) -> bool:
        return hmac.compare_digest(proof.encode(), self.proof(challenge, words).encode())
