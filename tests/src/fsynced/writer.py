"""One side of a shared folder: changes files, waits for each change to be safe, and says so. Arguments: the side's name,
and `git` if it commits as well. First it says what it sees; after a line on its input it begins, and at the end of its
input it finishes what it is at.

Item N of a side is, in this order: a record at the end of `log-SIDE`, `doc-SIDE` replaced, `both` replaced, a file `new/SIDE-N`
(that of 20 items ago is removed), and a slot of `slots-SIDE` written in place. `Promised` knows the same contents.
"""
import hashlib
import mmap
import os
import subprocess
import sys
import threading
import time

SLOTS, SLOT, KEPT = 8, 8192, 20
side = sys.argv[1]
commits = "git" in sys.argv[2:]
# The host would do a hundred times as many.
PAUSE = 0.01 if side == "host" else 0
ended = threading.Event()
saying = threading.Lock()


def say(*words):
    with saying:
        print(*words, flush=True)


def record(name, number):
    return f"{name} {number} {'x' * (number * 613 % 5000)} {number}\n".encode()


def seen():
    """A digest of every name and content."""
    all_files = hashlib.sha256()
    for folder, folders, names in os.walk("."):
        folders.sort()
        for name in sorted(names):
            path = f"{folder}/{name}"
            with open(path, "rb") as file:
                all_files.update(path.encode() + b"\0" + hashlib.sha256(file.read()).digest())
    return all_files.hexdigest()


def sync_folder(path):
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def write_synced(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def append(number):
    with open(f"log-{side}", "ab") as file:
        file.write(record(f"log-{side}", number))
        file.flush()
        os.fsync(file.fileno())


def replace(name, number):
    """As git and editors do."""
    new = f"{name}.{side}.tmp"
    write_synced(new, record(f"{name}-{side}", number))
    os.rename(new, name)
    sync_folder(".")


def new_file(number):
    """Not cut first: done again after a kill, it may have been said to be safe already."""
    data = record("new", number)
    fd = os.open(f"new/{side}-{number}", os.O_WRONLY | os.O_CREAT, 0o644)
    with open(fd, "wb") as file:
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(fd)
    sync_folder("new")


def remove(number):
    try:
        os.unlink(f"new/{side}-{number}")
    except FileNotFoundError:
        pass
    sync_folder("new")


def slot(number):
    """In place, by a call or through a mapping."""
    data = record(f"slot-{side}", number).ljust(SLOT, b".")
    offset = number % SLOTS * SLOT
    fd = os.open(f"slots-{side}", os.O_RDWR)
    if number // SLOTS % 2:
        os.pwrite(fd, data, offset)
        os.fdatasync(fd)
    else:
        with mmap.mmap(fd, SLOTS * SLOT) as memory:
            memory[offset:offset + SLOT] = data
            memory.flush()
    os.close(fd)


def rest(number):
    """All of an item but its place in the log; doing it again changes nothing."""
    replace(f"doc-{side}", number)
    say("doc", number)
    replace("both", number)
    say("both", number)
    new_file(number)
    say("new", number)
    if number > KEPT:
        remove(number - KEPT)
        say("gone", number - KEPT)
    slot(number)
    say("slot", number)


def recover():
    """What a program does with its own files after a crash. Returns the number of the latest whole record."""
    fd = os.open(f"log-{side}", os.O_RDWR | os.O_CREAT, 0o644)
    with open(fd, "r+b") as file:
        whole = file.read().split(b"\n")[:-1]
        file.truncate(sum(len(line) + 1 for line in whole))
        os.fsync(fd)
    fd = os.open(f"slots-{side}", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, SLOTS * SLOT)
    os.fsync(fd)
    os.close(fd)
    os.makedirs("new", exist_ok=True)
    for name in (f"doc-{side}", "both"):
        if os.path.exists(f"{name}.{side}.tmp"):
            os.unlink(f"{name}.{side}.tmp")
    sync_folder(".")
    return int(whole[-1].split()[1]) if whole else 0


def git(*words):
    safe = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync", "-c", "gc.auto=0"]
    who = ["-c", "user.name=t", "-c", "user.email=t@t.example"]
    done = subprocess.run(["git", "-C", "repo", *safe, *who, *words], capture_output=True, text=True)
    if done.returncode != 0:
        # In a thread, whose end nobody would notice.
        say("failed", f"git {words}: {done}")
        os._exit(1)
    return done.stdout.strip()


def commit_all():
    # The locks of a git that was killed; git says itself that they are to be removed.
    for folder, _, names in os.walk("repo/.git"):
        for name in names:
            if name.endswith(".lock"):
                os.unlink(f"{folder}/{name}")
    # The first was made by the host.
    number = int(git("rev-list", "--count", "HEAD")) - 1
    while not ended.is_set():
        number += 1
        write_synced("repo/file", record("file", number))
        git("commit", "-q", "-a", "--allow-empty", "-m", str(number))
        with open("repo/.git/refs/heads/main") as head:
            say("commit", head.read().strip())
        git("config", "branch.main.description", str(number))
        say("config", number)
        if number % 10 == 0:
            git("repack", "-adq")
            say("repack", number)


def main():
    say("seen", seen())
    if not sys.stdin.readline():
        return
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    committer = threading.Thread(target=commit_all)
    if commits:
        committer.start()
    number = recover()
    if number:
        rest(number)
    while not ended.is_set():
        number += 1
        append(number)
        say("log", number)
        rest(number)
        time.sleep(PAUSE)
    if commits:
        committer.join()
    say("end")


main()
