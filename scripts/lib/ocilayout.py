"""Writes OCI image layouts and archives, byte for byte the same for the same input.

Layers are tar streams that are written entry by entry, so that a test image may hold what no
ordinary tool writes: names that are no text, escaping paths, wrong sizes and digests.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import zlib

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = 1_700_000_000
REF_NAME = "org.opencontainers.image.ref.name"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def architecture():
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def dump(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Tar:
    """A tar stream that grows in a file."""

    def __init__(self, path):
        self.path = path
        self.file = open(path, "wb")
        self.known = set()

    def raw(self, data):
        self.file.write(data)

    def entry(self, name, kind=tarfile.REGTYPE, data=b"", mode=None, uid=0, gid=0, mtime=EPOCH, link="",
              device=(0, 0), pax=None, style=tarfile.PAX_FORMAT):
        info = tarfile.TarInfo(os.fsdecode(name))
        info.type = kind
        info.mode = mode if mode is not None else (0o755 if kind == tarfile.DIRTYPE else 0o644)
        info.uid, info.gid, info.mtime = uid, gid, mtime
        info.linkname = os.fsdecode(link)
        info.devmajor, info.devminor = device
        info.pax_headers = pax or {}
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        self.raw(info.tobuf(style, "utf-8", "surrogateescape"))
        if info.size:
            self.raw(data + bytes(-len(data) % 512))
        self.known.add(info.name.rstrip("/"))

    def dir(self, name, **options):
        self.entry(name, tarfile.DIRTYPE, **options)

    def parents(self, name, **options):
        """The directories above `name` that this stream does not have yet."""
        parts = os.fsdecode(name).split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent not in self.known:
                self.dir(parent, **options)

    def symlink(self, name, target, **options):
        self.entry(name, tarfile.SYMTYPE, link=target, mode=0o777, **options)

    def hardlink(self, name, target, **options):
        self.entry(name, tarfile.LNKTYPE, link=target, **options)

    def append(self, stream, skip=()):
        """Copies the entries of another tar stream; directories only once."""
        source = tarfile.open(fileobj=stream, mode="r|")
        for info in source:
            name = info.name.removeprefix("./").rstrip("/")
            if not name or name == "." or name.startswith(tuple(skip)) and skip:
                continue
            if info.isdir() and name in self.known:
                continue
            self.known.add(name)
            info.name = name
            if info.islnk():
                info.linkname = info.linkname.removeprefix("./")
            self.raw(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            if info.isreg() and info.size:
                shutil.copyfileobj(source.extractfile(info), self.file)
                self.raw(bytes(-info.size % 512))

    def close(self):
        self.raw(bytes(1024))
        self.file.close()
        return self.path


class Image:
    """Layers and a configuration."""

    def __init__(self, directory, arch=None, level=6, **config):
        self.directory = directory
        self.level = level
        self.blobs = os.path.join(directory, "blobs", "sha256")
        os.makedirs(self.blobs)
        self.config = {
            "architecture": arch or architecture(),
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        }
        self.layers = []

    def blob(self, data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.blobs, digest), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    def layer(self, path):
        """Compresses the tar file at `path` into a layer and removes it."""
        plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
        staging = os.path.join(self.blobs, "staging")
        # wbits 31: a gzip header without name or time.
        squeeze = zlib.compressobj(self.level, zlib.DEFLATED, 31)
        with open(path, "rb") as source, open(staging, "wb") as target:
            while True:
                chunk = source.read(1 << 20)
                plain.update(chunk)
                data = squeeze.compress(chunk) if chunk else squeeze.flush()
                packed.update(data)
                size += len(data)
                target.write(data)
                if not chunk:
                    break
        os.unlink(path)
        digest = packed.hexdigest()
        os.rename(staging, os.path.join(self.blobs, digest))
        return self.add({"mediaType": LAYER, "digest": "sha256:" + digest, "size": size}, plain.hexdigest())

    def add(self, descriptor, diff_id):
        self.layers.append(descriptor)
        self.config["rootfs"]["diff_ids"].append("sha256:" + diff_id)
        self.config["history"].append({"created": "2023-11-14T22:13:20Z", "created_by": "scripts/make-images"})
        return descriptor

    def finish(self, name, manifest_changes=None):
        """Writes configuration, manifest and index; `name` is the image's full name."""
        self.name = name
        self.config_descriptor = self.blob(dump(self.config), CONFIG)
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config_descriptor,
            "layers": self.layers,
        }
        self.manifest.update(manifest_changes or {})
        descriptor = self.blob(dump(self.manifest), MANIFEST)
        descriptor["annotations"] = {REF_NAME: name}
        descriptor["platform"] = {"architecture": self.config["architecture"], "os": "linux"}
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [descriptor]}
        self.write("index.json", dump(index))
        self.write("oci-layout", dump({"imageLayoutVersion": "1.0.0"}))
        return self

    def write(self, name, data):
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(data)

    def oci_archive(self, path):
        names = ["oci-layout", "index.json"]
        names += ["blobs/sha256/" + name for name in sorted(os.listdir(self.blobs))]
        pack(path, [(name, os.path.join(self.directory, name)) for name in names])

    def docker_archive(self, path):
        """What `docker save` writes: plain layer tars, a configuration, manifest.json."""
        layers = []
        with tarfile.open(path + ".part", "w", format=tarfile.USTAR_FORMAT) as archive:
            for descriptor, diff_id in zip(self.layers, self.config["rootfs"]["diff_ids"]):
                with open(os.path.join(self.blobs, descriptor["digest"].split(":")[1]), "rb") as file:
                    data = gzip.decompress(file.read())
                name = diff_id.split(":")[1] + ".tar"
                layers.append(name)
                put(archive, name, data)
            config = self.config_descriptor["digest"].split(":")[1] + ".json"
            put(archive, config, dump(self.config))
            put(archive, "manifest.json", dump([{"Config": config, "RepoTags": [self.name], "Layers": layers}]))
        os.rename(path + ".part", path)

    def dir_layout(self, path):
        """The `dir:` transport: the manifest and the blobs, named by their digests."""
        os.makedirs(path)
        with open(os.path.join(path, "version"), "w") as file:
            file.write("Directory Transport Version: 1.1\n")
        with open(os.path.join(path, "manifest.json"), "wb") as file:
            file.write(dump(self.manifest))
        for descriptor in [self.config_descriptor, *self.layers]:
            digest = descriptor["digest"].split(":")[1]
            shutil.copy(os.path.join(self.blobs, digest), os.path.join(path, digest))


def put(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), EPOCH, 0o644
    archive.addfile(info, io.BytesIO(data))


def pack(path, files):
    with tarfile.open(path + ".part", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, source in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = os.path.getsize(source), EPOCH, 0o644
            with open(source, "rb") as file:
                archive.addfile(info, file)
    os.rename(path + ".part", path)
