"""No archive of user code writes outside its directory."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optml.report import UserError
from optml.training.archive import unpack


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def pack(path: Path, *members: tarfile.TarInfo) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for info in members:
            data = b"content" if info.isreg() else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


def test_files_directories_and_links_inside(code: Path, tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "a.tar.gz",
        member("./", tarfile.DIRTYPE, mode=0o755),
        member("./train.py"),
        member("./pkg/run.sh", mode=0o755),
        member("./pkg/link.py", tarfile.SYMTYPE, "../train.py"),
        member("hard.py", tarfile.LNKTYPE, "./train.py"),
    )
    unpack(archive, str(code))
    assert (code / "train.py").read_text() == "content"
    assert (code / "pkg/link.py").read_text() == "content"
    assert (code / "hard.py").read_text() == "content"
    assert os.access(code / "pkg/run.sh", os.X_OK)


def test_a_file_in_the_archive_replaces_an_existing_one(code: Path, tmp_path: Path) -> None:
    (code / "train.py").write_text("baked")
    unpack(pack(tmp_path / "a.tar.gz", member("train.py")), str(code))
    assert (code / "train.py").read_text() == "content"


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/evil")],
        [member("../evil")],
        [member("pkg/../../evil")],
        [member("link", tarfile.SYMTYPE, "/etc")],
        [member("link", tarfile.SYMTYPE, "../..")],
        [member("pkg/link", tarfile.SYMTYPE, "../../x")],
        [member("hard", tarfile.LNKTYPE, "../x")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("null", tarfile.CHRTYPE)],
        [member("disk", tarfile.BLKTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("a", tarfile.SYMTYPE, "."), member("a/../../evil")],
    ],
    ids=lambda members: members[-1].name,
)
def test_unsafe_members_are_refused(code: Path, tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    with pytest.raises(UserError):
        unpack(pack(tmp_path / "a.tar.gz", *members), str(code))
    assert not (tmp_path / "evil").exists()


def test_an_existing_link_is_not_written_through(code: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (code / "train.py").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError):
        unpack(pack(tmp_path / "a.tar.gz", member("train.py")), str(code))
    assert (tmp_path / "victim").read_text() == "mine"


def test_setuid_and_write_access_for_others_are_removed(code: Path, tmp_path: Path) -> None:
    unpack(pack(tmp_path / "a.tar.gz", member("x", mode=0o6777), member("y", mode=0o600)), str(code))
    assert stat.S_IMODE((code / "x").stat().st_mode) == 0o755
    assert stat.S_IMODE((code / "y").stat().st_mode) == 0o644  # another user may run it


def test_everyone_may_read_what_was_packed_for_its_owner_only(code: Path, tmp_path: Path) -> None:
    members = (
        member("pkg", tarfile.DIRTYPE, mode=0o700),
        member("pkg/x.py", mode=0o600),
        member("run", mode=0o700),
    )
    unpack(pack(tmp_path / "a.tar.gz", *members), str(code))
    modes = [stat.S_IMODE((code / each.name).stat().st_mode) for each in members]
    assert modes == [0o755, 0o644, 0o755]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00broken"])
def test_a_file_that_is_not_an_archive_is_a_one_line_error(
    code: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(UserError) as problem:
        unpack(str(tmp_path / "a.tar.gz"), str(code))
    assert "\n" not in str(problem.value)


def test_a_truncated_archive_is_a_one_line_error(code: Path, tmp_path: Path) -> None:
    whole = Path(pack(tmp_path / "a.tar.gz", *(member(f"f{i}") for i in range(200))))
    whole.write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(UserError) as problem:
        unpack(str(whole), str(code))
    assert "\n" not in str(problem.value)


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c.py"]), min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.builds(member, NAMES, KINDS, NAMES), max_size=6))
@example([member("a", tarfile.SYMTYPE, ""), member("a/..", tarfile.SYMTYPE, "..")])
def test_no_archive_writes_outside_the_directory(members: list[tarfile.TarInfo]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "outer"
        (root / "code").mkdir(parents=True)
        (root / "a").write_text("mine")
        try:
            unpack(pack(Path(scratch) / "x.tar.gz", *members), str(root / "code"))
        except UserError:
            pass
        assert sorted(p.name for p in root.iterdir()) == ["a", "code"]
        assert (root / "a").read_text() == "mine"
        for path in (root / "code").rglob("*"):
            # A circular link leads nowhere.
            assert not path.exists() or Path(os.path.realpath(path)).is_relative_to(root / "code")
