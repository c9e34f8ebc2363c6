"""What holds for every image: paths, users, Python, and what must be absent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.docker import HARDENED, docker, run
from tests.support.images import show_size
from tests.support.matrix import ROOT, Cell

ENTRYPOINT = "/opt/optml/bin/entrypoint"
PATHS = ["", "input", "input/config", "input/data", "model", "code", "output", "output/data", "checkpoints"]


def test_contract_paths_belong_to_ml_and_its_group(host: Host) -> None:
    paths = [f"/opt/ml/{path}" for path in PATHS]
    found = host.check_output(f"stat --format '%n %F %U:%G %a' {' '.join(paths)}")
    assert found.splitlines() == [f"{path} directory ml:root 775" for path in paths]


def test_user_ml_is_uid_1000_in_group_0(host: Host) -> None:
    ml = host.user("ml")
    assert (ml.uid, ml.gid, ml.home, ml.shell) == (1000, 0, "/home/ml", "/bin/bash")
    assert host.file(ml.home).mode == 0o775


def test_no_user_has_a_password(host: Host) -> None:
    passwords = {line.split(":")[1] for line in host.file("/etc/shadow").content_string.splitlines()}
    assert passwords <= {"*", "!", "!*"}


def test_python_is_the_variants(host: Host, cell: Cell) -> None:
    version = host.check_output('python3 -c "import sys; print(*sys.version_info[:2], sep=chr(46))"')
    assert version == cell.python
    names = ("python", "python3", "pip", "pip3")
    found = host.check_output(f"for name in {' '.join(names)}; do command -v $name; done")
    assert found.splitlines() == [f"/opt/venv/bin/{name}" for name in names]


def test_the_users_python_holds_pip_alone(host: Host) -> None:
    (package,) = host.check_output("pip list --format=freeze").splitlines()
    assert package.startswith("pip==")


def test_any_uid_may_install_into_the_venv(cell: Cell) -> None:
    script = "cd /opt/venv/lib/python3.*/site-packages && touch x /opt/venv/bin/x /opt/ml/model/x"
    assert run(cell.tag, "sh", "-c", script, options=("--user=12345",)).code == 0


NOT_IN_THE_IMAGE = {
    # Debian has these in packages of their own, such as python3-tk.
    *("tkinter", "_tkinter", "turtle", "turtledemo", "idlelib", "_gdbm", "_dbm"),
    *("ensurepip", "distutils", "lib2to3"),
    # Other systems only.
    *("msvcrt", "nt", "winreg", "winsound", "_winapi", "_overlapped", "_wmi", "_msi", "msilib", "_scproxy"),
    *("_android_support", "_ios_support", "_osx_support"),
    # They print a poem and open a browser.
    *("this", "antigravity"),
}


def test_the_whole_standard_library_imports(host: Host) -> None:
    script = f"""
import importlib, sys
for name in sorted(sys.stdlib_module_names - {NOT_IN_THE_IMAGE}):
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, repr(error))
"""
    assert host.check_output("python3 -W ignore -c %s", script) == ""


def test_bytecode_is_there_and_never_checked(host: Host) -> None:
    script = """
import glob, json, os, optml, pip
print([path for root in ("/usr/lib/python3*", "/opt/venv/lib", "/opt/optml")
       for path in glob.glob(root + "/**/*.pyc", recursive=True)
       if open(path, "rb").read(8)[4:] != bytes([1, 0, 0, 0])])
print([module for module in (json, optml, pip) if not os.path.exists(module.__spec__.cached)])
"""
    assert host.check_output("python3 -W ignore -c %s", script) == "[]\n[]"


def test_no_pth_file_imports_anything(host: Host) -> None:
    # Lines that begin with `import` run at every start of the interpreter.
    assert host.run("grep -rl --include='*.pth' '^import' /opt /usr/lib/python3*").stdout == ""


def test_import_optml_works_in_user_code_and_brings_nothing_else(host: Host) -> None:
    script = """
import importlib.util, optml
print([name for name in ("boto3", "flask", "gunicorn", "pynvml") if importlib.util.find_spec(name)])
"""
    assert host.check_output("python3 -c %s", script) == "[]"


def test_what_must_not_be_there(host: Host) -> None:
    assert host.run("for name in gcc cc make g++ ld; do command -v $name; done").stdout == ""
    assert host.check_output("find / -xdev -perm /6000 -type f") == ""
    assert host.run("find /var/lib/apt/lists /var/cache /tmp /var/log /root/.cache -type f").stdout == ""
    keys = "find / -xdev \\( -name '*.pem' -o -name '*.key' \\) -type f -exec grep -l PRIVATE {} +"
    assert host.run(keys).stdout == ""


def test_nothing_is_left_over_of_the_build(host: Host) -> None:
    assert host.check_output("find /etc -name '*-' -type f") == ""
    assert host.check_output("find /etc /usr /opt -xtype l -not -path '/usr/share/doc/*'") == ""


def test_every_package_has_its_licence(host: Host) -> None:
    lost = (
        "for p in $(dpkg-query -W -f '${Package} '); do test -s /usr/share/doc/$p/copyright || echo $p; done"
    )
    assert host.check_output(lost) == ""
    for name in ("LICENSE", "NOTICE"):
        assert host.file(f"/opt/optml/{name}").content_string == (ROOT / name).read_text()


def test_a_package_that_links_its_manual_page_installs(cell: Cell) -> None:
    # As Java's packages do: update-alternatives fails if the folder of the link is absent.
    script = """
set -e
mkdir -p /tmp/p/DEBIAN /tmp/p/usr/lib/editor /tmp/p/usr/share/doc/neighbour
cd /tmp/p
touch usr/lib/editor/editor usr/lib/editor/editor.1.gz usr/share/doc/neighbour/copyright
ln -s neighbour usr/share/doc/editor
printf '%s: editor\n' Package Maintainer Description > DEBIAN/control
printf '%s\n' 'Version: 1' 'Architecture: all' >> DEBIAN/control
echo '#!/bin/sh' > DEBIAN/postinst
echo 'update-alternatives --install /usr/bin/editor editor /usr/lib/editor/editor 10 \
    --slave /usr/share/man/man1/editor.1.gz editor.1.gz /usr/lib/editor/editor.1.gz' >> DEBIAN/postinst
chmod 755 DEBIAN/postinst
dpkg-deb --build . /tmp/editor.deb > /dev/null
dpkg --install /tmp/editor.deb
test -e /usr/share/man/man1/editor.1.gz
test -e /usr/share/doc/editor/copyright
"""
    result = run(cell.tag, "sh", "-c", script)
    assert result.code == 0, result.output


def test_openmp_is_there_for_wheels_that_expect_it(host: Host) -> None:
    assert host.run("python3 -c 'import ctypes; ctypes.CDLL(\"libgomp.so.1\")'").rc == 0


def test_no_certificate_authority_but_debians(host: Host) -> None:
    assert host.check_output("ls -A /usr/local/share/ca-certificates") == ""
    bundle = host.check_output("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt")
    assert bundle == host.check_output("ls /usr/share/ca-certificates/mozilla/*.crt | wc -l")


def test_time_zones_and_locale(host: Host) -> None:
    assert host.check_output("TZ=Europe/Berlin date -d 2026-07-01T12:00Z +%H") == "14"
    assert host.check_output("locale | grep ^LANG=") == "LANG=C.UTF-8"
    assert host.check_output("python3 -c 'import locale; print(locale.getpreferredencoding())'") == "UTF-8"


def test_apt_and_dpkg_are_in_order(host: Host) -> None:
    assert host.check_output("dpkg --audit") == ""
    assert host.run("apt-get check").rc == 0
    installed = host.check_output("dpkg-query --show --showformat '${db:Status-Abbrev}${Package}\n'")
    for line in (ROOT / "images/base/packages").read_text().splitlines():
        package = line.partition("#")[0].strip()
        assert not package or f"ii {package}" in installed.splitlines()


def test_entry_point_and_labels(config: dict[str, Any], cell: Cell) -> None:
    assert config["Entrypoint"] == [ENTRYPOINT]
    assert config["WorkingDir"] == "/opt/ml/code"
    assert config["User"] == ""
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"optml {cell.image}"
    assert labels["org.opencontainers.image.version"]
    assert labels["org.opencontainers.image.created"] == "2026-01-01T00:00:00Z"
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    # The digest of the parent's index is not known yet when the image is built.
    assert "org.opencontainers.image.base.digest" not in labels
    base_name = labels.get("org.opencontainers.image.base.name", "")
    assert f"optml/{cell.parent}:" in base_name if cell.parent else not base_name


def test_the_runtime_is_the_roots(host: Host) -> None:
    assert host.check_output("find /opt/optml -not -type l \\( -not -user root -o -perm /022 \\)") == ""


def test_train_and_serve_are_on_path(host: Host) -> None:
    for verb in ("train", "serve"):
        assert host.file(f"/usr/local/bin/{verb}").linked_to == f"/opt/optml/bin/{verb}"


def test_any_other_command_runs_as_given(cell: Cell) -> None:
    program = "import sys; print(sys.argv[1:]); sys.exit(7)"
    result = run(cell.tag, "python3", "-c", program, "a b", "")
    assert (result.code, result.stdout) == (7, "['a b', '']\n")


def test_help_says_what_there_is(host: Host) -> None:
    shown = host.check_output(f"{ENTRYPOINT} --help")
    for word in ("train", "serve", "PROGRAM"):
        assert word in shown


def test_an_unknown_verb_gets_one_line(host: Host) -> None:
    result = host.run(f"{ENTRYPOINT} trian")
    assert result.rc == 127
    assert result.stdout == ""
    assert result.stderr.startswith("optml: error: 'trian' is neither train nor serve nor a program on PATH")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["/opt/program", "/usr/bin"])
def test_a_users_own_programs_win_wherever_they_stand_on_path(cell: Cell, place: str, tmp_path: Path) -> None:
    mounts = []
    for verb in ("train", "serve"):
        (tmp_path / verb).write_text(f"#!/bin/sh\necho my own {verb} $@\n")
        (tmp_path / verb).chmod(0o755)
        mounts.append(f"--volume={tmp_path / verb}:{place}/{verb}:ro")
    path = "--env=PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/opt/program"
    both = f"{ENTRYPOINT} train now; {ENTRYPOINT} serve now"
    result = run(cell.tag, "sh", "-c", both, options=(*mounts, path))
    assert result.stdout == "my own train now\nmy own serve now\n"


def test_runs_with_no_rights_at_all(cell: Cell) -> None:
    result = run(cell.tag, "python3", "-c", "import os, optml; print(os.getuid())", options=HARDENED)
    assert (result.code, result.stdout) == (0, "12345\n")


def test_is_within_its_budget(cell: Cell) -> None:
    show_size(cell)


def test_what_takes_room_is_named(cell: Cell) -> None:
    shown = show_size(cell, "--packages")
    (unnamed,) = re.findall(r"([\d.]+) MB  of no package", shown) or ["0"]
    assert float(unnamed) < 4, shown  # dpkg's own database and caches


def test_no_layer_holds_a_trace_of_the_build(cell: Cell) -> None:
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", cell.tag).stdout
    assert "proxy" not in history.lower()
    assert "PIP_" not in history
