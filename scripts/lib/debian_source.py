"""Sources of Debian packages: with apt-get source, or the upstream tarball alone out of Debian's archive.

An archive may lack single files of a suite, a Debian patch or a .dsc. The upstream tarball of that suite, or of a newer
one, is as good for a test suite, so it is fetched by itself: the suite's index must bear a signature that the machine's
keyring knows, and everything else the SHA-256 that the index gives.
"""

import glob
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

# After the machine's own suites.
NEWER = ["stable", "testing", "unstable"]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 60
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def origins():
    """(options, uri, suite) of the machine's apt sources that are Debian's own, most machines list no sources."""
    found = []
    names = ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*"))]
    for name in filter(os.path.isfile, names):
        with open(name) as file:
            text = file.read()
        if name.endswith(".sources"):
            for block in re.split(r"\n\s*\n", text):
                field = {k.lower(): v.strip() for k, v in re.findall(r"(?m)^([A-Za-z-]+):(.*)$", block)}
                if "deb" in field.get("types", "").split():
                    options = f"[signed-by={field['signed-by']}] " if "signed-by" in field else ""
                    found += [(options, uri, suite) for uri in field.get("uris", "").split()
                              for suite in field.get("suites", "").split()]
        elif name.endswith(".list"):
            for options, uri, suite in re.findall(r"(?m)^deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)", text):
                found.append((options, uri, suite))
    # Other archives (a vendor's) are none of ours, whatever their suites are called.
    return [(options, uri.rstrip("/"), suite) for options, uri, suite in found if re.search(r"/debian(-\w+)?/*$", uri)]


def with_apt(package, scratch):
    """(version, directory) as apt-get source unpacks it, with Debian's patches; nothing if it cannot."""
    apt = os.path.join(scratch, "apt")
    for part in ("lists/partial", "cache/archives/partial", "source"):
        os.makedirs(os.path.join(apt, part), exist_ok=True)
    with open(os.path.join(apt, "sources"), "w") as file:
        file.writelines(f"deb-src {options}{uri} {suite} main\n" for options, uri, suite in origins())
    options = ["-qq", "-o", f"Dir::Etc::sourcelist={apt}/sources", "-o", "Dir::Etc::sourceparts=/nonexistent",
               "-o", f"Dir::State::lists={apt}/lists", "-o", f"Dir::Cache={apt}/cache", "-o", "APT::Sandbox::User=root",
               "-o", f"Acquire::http::Timeout={SECONDS}"]
    where = os.path.join(apt, "source")
    subprocess.run(["apt-get", *options, "update"], **QUIET)
    if subprocess.run(["apt-get", *options, "source", package], cwd=where, **QUIET).returncode:
        return None
    for name in os.listdir(where):
        if name.startswith(package + "-") and os.path.isdir(os.path.join(where, name)):
            return name[len(package) + 1:], os.path.join(where, name)
    return None


def fetch(url, sha256=None):
    """The bytes at an address; nothing if they are not served or not what was promised."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            content = answer.read()
    except (urllib.error.URLError, OSError):
        return None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        return None
    return content


def verified(signed):
    """What one of Debian's keys has signed of an InRelease; nothing if none has.

    Newer suites are signed with several keys of which an older keyring knows one: gpgv's exit code asks for
    all, apt and this for one.
    """
    with tempfile.TemporaryDirectory() as directory:
        name, plain = os.path.join(directory, "InRelease"), os.path.join(directory, "Release")
        with open(name, "wb") as file:
            file.write(signed)
        checked = subprocess.run(["gpgv", "--keyring", KEYRING, "--status-fd", "1", "--output", plain, name],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if "[GNUPG:] VALIDSIG " not in checked.stdout or not os.path.exists(plain):
            return None
        with open(plain) as file:
            return file.read()


def upstream(package, uri, suite):
    """[(version, address, sha256)] of the upstream tarballs that a suite lists."""
    signed = fetch(f"{uri}/dists/{suite}/InRelease")
    release = verified(signed) if signed else None
    index = re.search(r"(?m)^ ([0-9a-f]{64}) +\d+ main/source/Sources\.xz$", release or "")
    packed = fetch(f"{uri}/dists/{suite}/main/source/Sources.xz", index.group(1)) if index else None
    found = []
    for block in lzma.decompress(packed).decode().split("\n\n") if packed else []:
        if not block.startswith(f"Package: {package}\n"):
            continue
        version = re.search(r"(?m)^Version: (\S+)$", block).group(1)
        directory = re.search(r"(?m)^Directory: (\S+)$", block).group(1)
        sums = block.partition("Checksums-Sha256:\n")[2]
        tarball = re.search(r"(?m)^ ([0-9a-f]{64}) \d+ (\S+\.orig\.tar\.(?:xz|gz|bz2))$", sums)
        if tarball:
            found.append((version.rsplit("-", 1)[0], f"{uri}/{directory}/{tarball.group(2)}", tarball.group(1)))
    return found


def with_tarball(package, scratch, suites):
    """As with_apt, from the upstream tarball alone; suites are tried in their order."""
    tried = set()
    for uri, suite in suites:
        for version, address, sha256 in upstream(package, uri, suite):
            if sha256 in tried:
                continue
            tried.add(sha256)
            content = fetch(address, sha256)
            if content is None:
                continue
            target = os.path.join(scratch, f"{package}-tarball-{version}")
            os.makedirs(target)
            if subprocess.run(["tar", "-x", "-C", target, "--strip-components=1", "--no-same-owner",
                               {"gz": "-z", "bz2": "-j"}.get(address.rpartition(".")[2], "-J")],
                              input=content, **QUIET).returncode == 0:
                return version, target
    return None


def source(package, scratch, keep=None, newer=False):
    """(version, directory) of a package's source, or nothing; a directory to keep it in is looked into first.

    The newer one comes from the newer suites alone, the newest first.
    """
    kind = "newer" if newer else "source"
    for directory in sorted(glob.glob(os.path.join(keep or scratch, f"{package}-{kind}-*"))):
        return os.path.basename(directory).partition(f"-{kind}-")[2], directory
    listed = [(uri, suite) for _, uri, suite in origins()]
    plain = list(dict.fromkeys(uri for uri, suite in listed if "-" not in suite))
    suites = [(uri, suite) for suite in NEWER for uri in plain]
    if newer:
        got = with_tarball(package, scratch, suites[::-1])
    else:
        got = with_apt(package, scratch) or with_tarball(package, scratch, listed + suites)
    if got is None:
        return None
    target = os.path.join(keep or scratch, f"{package}-{kind}-{got[0]}")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.move(got[1], target)
    return got[0], target
