"""The key that the hosts of a job share without exchanging it: it is derived from the job's own data.

Anyone who knows all of that data can derive it, too, unless the user adds a secret, SAGEMAKER_JOB_SECRET.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from . import jsontext
from .job import Job

SECRET = "SAGEMAKER_JOB_SECRET"


def derive(job: Job) -> bytes:
    # Without the hyperparameters: a host that cannot read them must be heard.
    variables = map(os.environ.get, ("TRAINING_JOB_NAME", SECRET))
    facts = [job.arn, *variables, job.hosts, job.instance_groups]
    # Slow on purpose (50 ms): an eavesdropper can check guesses of the data against the proofs.
    text = jsontext.dumps(facts).encode("ascii")
    return hashlib.scrypt(text, salt=b"optml", n=1 << 14, r=8, p=1, dklen=32)


def proof(key: bytes, challenge: str, words: str) -> str:
    """The proof that the sender of `words` in reply to `challenge` knows the key."""
    return hmac.new(key, f"{challenge}\n{words}".encode(), "sha256").hexdigest()


def proves(key: bytes, given: str, challenge: str, words: str) -> bool:
    return hmac.compare_digest(given.encode(), proof(key, challenge, words).encode())
