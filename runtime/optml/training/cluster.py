"""The hosts of the job, this host's rank, and where both come from.

resourceconfig.json takes precedence if it names hosts; else a scheduler's variables do. All other sources
must agree: a host that trains alone although a source names more would be a false success.
"""

from __future__ import annotations

from .. import paths
from ..hints import Any, Mapping
from ..report import UserError
from . import jsontext
from .record import Record

MASTER_PORT = "7777"
RESOURCES = "resourceconfig.json"
_FILE = f"{paths.CONFIG}/{RESOURCES}"
INDEX = "JOB_COMPLETION_INDEX"

# schedulers.py is imported only if the name of a variable begins with one of these.
_PREFIXES = (
    *("PET_", "WORLD_SIZE", "RANK", "NNODES", "OMPI_C", "SLURM_", "JAX_", "DMLC_"),
    *("AWS_BATCH_JOB_N", "SKYPILOT_N"),
)


class Cluster(Record):
    """The hosts of a job as one of them sees them."""

    scheduler: str
    """Where the hosts come from, for messages."""
    hosts: list[str]
    """The leader first. A host without a known name is `node-N.invalid`."""
    rank: int
    least: int
    """How many hosts the job needs; less than `hosts` only in an elastic job."""
    port: str
    """The program's port on the leader."""
    process: dict[str, str]
    """RANK, WORLD_SIZE and other variables of the program that the scheduler decides."""

    def __str__(self) -> str:
        most = len(self.hosts)
        if self.least < most:
            return f"one of {self.least} to {most} hosts, by {self.scheduler}"
        return f"host {self.rank + 1} of {most}, by {self.scheduler}"

    @property
    def of_processes(self) -> bool:
        """Whether the scheduler starts each process of the program itself, not one launcher per host."""
        return "WORLD_SIZE" in self.process


def find(resources: dict[str, Any], environ: Mapping[str, str], gpus: int) -> Cluster | None:
    """This host's cluster, or None if nothing names other hosts.

    Raises UserError if a source is invalid, or if two do not agree.
    """
    hosts, current = _hosts(resources), resources.get("current_host")
    if not any(name.startswith(_PREFIXES) for name in environ):
        return _of_file(hosts, current, environ, []) if hosts else None
    from . import schedulers

    claims = schedulers.claims(environ, gpus)
    if hosts:
        claims.insert(0, _of_file(hosts, current, environ, claims))
    for other in claims[1:]:
        _check(_agree(claims[0], other), claims[0], other)
    found = claims[0] if claims else None

    # mpirun and WORLD_SIZE may count processes, not hosts: they decide only if no other source does.
    mpirun = schedulers.mpirun(environ)
    if not found and not environ.get("RANK"):
        found = mpirun
    world = schedulers.world(environ, found) if len(hosts) < 2 else None
    if found and world:
        _check(_fits(found, world), found, world)
    found = found or world or mpirun
    if not found:
        schedulers.hyperpod(environ)
    elif mpirun and len(mpirun.hosts) > 1 and found is not mpirun:
        if len(found.hosts) == 1 and not hosts:
            return mpirun  # it was started on the only host of a job
        _check((_fits if found.of_processes else _agree)(found, mpirun), found, mpirun)
    return found


def believed(environ: Mapping[str, str]) -> Cluster | None:
    """What `train` found, for its program: launchers change the variables that `find` reads."""
    try:
        hosts = jsontext.loads(environ["SM_HOSTS"])
        rank = hosts.index(environ["SM_CURRENT_HOST"])
    except (KeyError, ValueError, AttributeError):
        return None
    if not are_names(hosts):
        return None
    port = environ.get("SM_MASTER_PORT") or MASTER_PORT
    return placed("SM_HOSTS", hosts, len(hosts), rank, port)


def placed(
    scheduler: str,
    names: list[str],
    size: int,
    rank: int,
    port: str = MASTER_PORT,
    process: dict[str, str] | None = None,
    least: int = 0,
) -> Cluster:
    """A cluster of `size` hosts. `names` has those of all hosts, or only the leader's."""
    hosts = [*names, *(f"node-{number}.invalid" for number in range(len(names), size))]
    return Cluster(
        scheduler=scheduler, hosts=hosts, rank=rank, least=least or size, port=port, process=process or {}
    )


def _hosts(resources: dict[str, Any]) -> list[str]:
    hosts, current = resources.get("hosts") or [], resources.get("current_host")
    if hosts and not are_names(hosts):
        raise UserError(f"{_FILE}: hosts must be an array of host names")
    if hosts and current and current not in hosts:
        raise UserError(f"{_FILE}: current_host {current!r} is not one of hosts {hosts}")
    return list(hosts)


def _of_file(
    hosts: list[str], current: str | None, environ: Mapping[str, str], claims: list[Cluster]
) -> Cluster:
    """The hosts of resourceconfig.json. Without current_host in it, the rank is that of the scheduler, or
    the pod's index in a Kubernetes Job."""
    index = environ.get(INDEX, "")
    if current:
        rank = hosts.index(current)
    elif len(hosts) == 1:
        rank = 0
    elif claims:
        rank = claims[0].rank
    elif not index.isdecimal():
        raise UserError(
            f"{_FILE} names {len(hosts)} hosts, but neither current_host in it nor {INDEX} says which of them"
            " this is; give each host one of the two"
        )
    elif len(index) < 7 and int(index) < len(hosts):
        rank = int(index)
    else:
        raise UserError(
            f"{_FILE} names {len(hosts)} hosts, and none for {INDEX} {index}; name as many as the Job has"
            " completions"
        )
    return placed(RESOURCES, hosts, len(hosts), rank, process=claims[0].process if claims else {})


def _agree(one: Cluster, other: Cluster) -> bool:
    if one.least < len(one.hosts) or other.least < len(other.hosts):  # elastic hosts get their ranks later
        fewest = max(one.least, other.least)
        return fewest <= len(one.hosts) and fewest <= len(other.hosts) and one.rank < len(one.hosts)
    return (len(one.hosts), one.rank) == (len(other.hosts), other.rank)


def _fits(cluster: Cluster, world: Cluster) -> bool:
    """Whether RANK and WORLD_SIZE can be those of a process or, as in a PyTorchJob, of a host."""
    size, hosts = len(world.hosts), len(cluster.hosts)
    if cluster.of_processes:
        return (str(size), str(world.rank)) == (cluster.process["WORLD_SIZE"], cluster.process["RANK"])
    if cluster.least < hosts:
        return size >= cluster.least
    each, rest = divmod(size, hosts)
    if rest or not each or (each > 1 and hosts == 1 and cluster.process.get("LOCAL_WORLD_SIZE") != str(size)):
        return False
    return cluster.rank in (world.rank, world.rank // each)


def _check(agrees: bool, one: Cluster, other: Cluster) -> None:
    if not agrees:
        raise UserError(f"{one}, but {other}; remove the one that is wrong")


def are_names(values: object) -> bool:
    return isinstance(values, list) and all(map(is_name, values))


def is_name(value: object) -> bool:
    """Whether this can be the name of a host, or of anything else that goes on a command line."""
    return isinstance(value, str) and 0 < len(value) < 256 and value.isprintable()
