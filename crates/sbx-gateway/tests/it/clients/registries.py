"""Registries of one package each in a folder: a simple index (pip), npm, a sparse index (cargo), a Debian repository and
a Git LFS batch API. Arguments: the folder, then the host names under which it will be served."""
import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

root, hosts = Path(sys.argv[1]), sys.argv[2:]


def put(path, content):
    path = root / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# pip: PEP 503, and a wheel.
wheel = io.BytesIO()
info = "sbx_hello-1.0.dist-info"
with zipfile.ZipFile(wheel, "w") as file:
    file.writestr("sbx_hello.py", 'print("hello from a wheel")\n')
    file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sbx-hello\nVersion: 1.0\n")
    file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    file.writestr(f"{info}/RECORD", "sbx_hello.py,,\n")
name = "sbx_hello-1.0-py3-none-any.whl"
put(f"simple/sbx-hello/{name}", wheel.getvalue())
put("simple/sbx-hello/index.html", f'<!DOCTYPE html><a href="{name}#sha256={sha256(wheel.getvalue())}">{name}</a>')

# npm: a document per package, and a tarball.
package = archive({
    "package/package.json": '{"name": "sbx-hello", "version": "1.0.0"}',
    "package/hello.js": 'console.log("hello from a tarball")\n',
})
put("tarballs/sbx-hello-1.0.0.tgz", package)
integrity = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()

# cargo: a sparse index, and a crate.
crate = archive({
    "sbx-hello-1.0.0/Cargo.toml": '[package]\nname = "sbx-hello"\nversion = "1.0.0"\nedition = "2021"\n',
    "sbx-hello-1.0.0/src/lib.rs": "// hello from a crate\n",
})
put("crates/sbx-hello-1.0.0.crate", crate)
line = {"name": "sbx-hello", "vers": "1.0.0", "deps": [], "cksum": sha256(crate), "features": {}, "yanked": False}

# git-lfs: one object, and the answer to the one batch there is.
large = bytes(2_000_000)
put(f"objects/{sha256(large)}", large)

for host in hosts:
    dist = {"tarball": f"https://{host}/tarballs/sbx-hello-1.0.0.tgz", "integrity": integrity}
    version = {"name": "sbx-hello", "version": "1.0.0", "dist": dist}
    document = {"name": "sbx-hello", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    put(f"npm/{host}/sbx-hello", json.dumps(document))
    put(f"cargo/{host}/config.json", json.dumps({"dl": f"https://{host}/crates/{{crate}}-{{version}}.crate"}))
    put(f"cargo/{host}/sb/x-/sbx-hello", json.dumps(line) + "\n")
    download = {"href": f"https://{host}/objects/{sha256(large)}"}
    thing = {"oid": sha256(large), "size": len(large), "authenticated": True, "actions": {"download": download}}
    put(f"lfs/{host}/objects/batch", json.dumps({"transfer": "basic", "objects": [thing]}))

# apt: a repository without a signature, which the clients are told to trust.
control = "Package: sbx-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.test>\n"
put("build/DEBIAN/control", control + "Description: hello from a package\n")
put("build/usr/share/sbx-hello/hello", "hello\n")
deb = root / "debian/pool/sbx-hello_1.0_all.deb"
deb.parent.mkdir(parents=True)
subprocess.run(["dpkg-deb", "--build", root / "build", deb], check=True, stdout=subprocess.DEVNULL)
content = deb.read_bytes()
stanza = f"Filename: pool/{deb.name}\nSize: {len(content)}\nSHA256: {sha256(content)}\nDescription: hello from a package\n"
packages = (control + stanza).encode()
put("debian/dists/stable/main/binary-amd64/Packages", packages)
release = "Suite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64 all\n"
digest = f"SHA256:\n {sha256(packages)} {len(packages)} main/binary-amd64/Packages\n"
put("debian/dists/stable/Release", f"{release}Date: Thu, 01 Jan 2026 00:00:00 UTC\n{digest}")
