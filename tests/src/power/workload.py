"""Runs inside: makes changes, waits for each to be safe, and says so. Arguments: where, a folder with programs of sbx, how many
sandboxes are there to be removed, one for each item.

Item I begins with a file that holds `sbx-item-I;`. That text in the log of a disk's writes therefore says that all
items before I had been confirmed by then.
"""
import hashlib
import os
import pathlib
import sqlite3
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
programs = pathlib.Path(sys.argv[2])
files = root / "files"
planted = int(sys.argv[3])


def sync_folder(path):
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def mark(item):
    return f"sbx-item-{item:06d};"


def content(item):
    """Up to 60 KiB whose last line is the digest of the rest."""
    body = (mark(item) * (1 + item * 613 % 4000)).encode()
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def new_file(item):
    """The usual way: a new file, synced, then renamed."""
    path = files / f"new-{item}"
    with open(path, "wb") as file:
        file.write(content(item))
        file.flush()
        os.fsync(file.fileno())
    path.rename(files / f"item-{item}")
    sync_folder(files)


def appended(item):
    with open(files / "appended", "ab") as file:
        file.write((mark(item) + "\n").encode())
        file.flush()
        os.fdatasync(file.fileno())


def databases():
    made = []
    for name, mode in [("rollback", "DELETE"), ("wal", "WAL")]:
        one = sqlite3.connect(files / f"{name}.db", isolation_level=None)
        one.execute(f"PRAGMA journal_mode={mode}")
        one.execute("PRAGMA synchronous=FULL" if mode == "WAL" else "PRAGMA synchronous=EXTRA")
        one.execute("CREATE TABLE items (item INTEGER PRIMARY KEY, content BLOB)")
        made.append(one)
    sync_folder(files)
    return made


def sbx(*words):
    done = subprocess.run([programs / "sbx", *words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"sbx {words}: {done}")


def plant(number):
    """A sandbox that does not run, as a daemon finds it at its start."""
    identity = f"{number:012x}"
    folder = root / "state/sbx/sandboxes" / identity
    folder.mkdir(parents=True)
    (folder / "upper.qcow2").write_bytes(bytes(5000))
    (folder / "sandbox.json").write_text(
        '{"schema":1,"id":"' + identity + f'","name":"planted-{number}",' + '"agent":"shell","workspaces":[],"env":[],'
        '"cpus":1,"memory_mib":512,"accel_wanted":null,"accel":"tcg","image":"base-0","agent_command":["bash"],'
        '"workdir":"/home/agent","machine_id":"00000000000000000000000000000000","placeholders":{},'
        '"created_at":"2026-01-01T00:00:00Z","last_used_at":null}'
    )


def changes(item):
    """Rules, settings and sandboxes of the daemon whose state lies on this disk."""
    sbx("policy", "allow", "network", f"item-{item}.example")
    sbx("settings", "set", "sandbox.autoStop", f"{item + 1}m")
    sbx("rm", "--force", f"planted-{item}")


def main():
    os.environ.update(
        HOME=str(root),
        XDG_STATE_HOME=str(root / "state"),
        XDG_CONFIG_HOME=str(root / "config"),
        XDG_CACHE_HOME=str(root / "cache"),
    )
    files.mkdir(parents=True)
    open_databases = databases()
    for number in range(planted):
        plant(number)
    sbx("policy", "init", "deny-all")
    os.sync()
    print("ready", flush=True)
    for item in range(planted):
        new_file(item)
        appended(item)
        for one in open_databases:
            one.execute("INSERT INTO items VALUES (?, ?)", (item, content(item)))
        if item % 5 == 4:
            # A database that is emptied again gives its pages back.
            (files / f"item-{item - 4}").unlink()
            sync_folder(files)
        changes(item)
        print(item, flush=True)


main()
