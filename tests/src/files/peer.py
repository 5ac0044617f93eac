"""One side of a shared folder: answers expressions of Python that come as JSON strings, one a line, with their values
as JSON. Runs in that folder, inside or outside, with Python alone."""
import ctypes
import hashlib
import json
import mmap
import os
import stat
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
PUNCH_HOLE, KEEP_SIZE, EXCHANGE, HERE = 2, 1, 2, -100
# Open files, by number; they stay open from one request to the next.
slots = {}


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


def get(path):
    with open(path) as file:
        return file.read()


def said(act):
    """The text of the error that something ends with."""
    try:
        act()
    except OSError as error:
        return str(error)
    return ""


def within(seconds, condition):
    """How long it took until the condition held, looking all the time; None: it did not."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            return None
        time.sleep(0.002)
    return time.monotonic() - start


def fill(seed, length):
    unit = b"%08x." % seed
    return (unit * (length // 9 + 1))[:length]


def digest(data):
    return [len(data), hashlib.sha256(data).hexdigest()]


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def write_all(fd, data, offset):
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


def opened(path, flags, act):
    fd = os.open(path, flags, 0o644)
    try:
        return act(fd)
    finally:
        os.close(fd)


def map_write(fd, offset, data):
    with mmap.mmap(fd, 0) as memory:
        memory[offset:offset + len(data)] = data
        memory.flush()


def map_read(fd, offset, length):
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as memory:
        return digest(memory[offset:offset + length])


def copy(source, target, from_offset, to_offset, length):
    one, other = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY)
    try:
        done = 0
        while done < length:
            step = os.copy_file_range(one, other, length - done, from_offset + done, to_offset + done)
            if step == 0:
                break
            done += step
        return done
    finally:
        os.close(one)
        os.close(other)


def exchange(one, other):
    if libc.renameat2(HERE, one.encode(), HERE, other.encode(), EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def open_slot(slot, path):
    slots[slot] = os.open(path, os.O_RDWR)


# What the operations of `Step::wire` do.
ACTIONS = {
    "put": lambda path, length, seed: opened(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, lambda fd: write_all(fd, fill(seed, length), 0)
    ),
    "write": lambda path, offset, length, seed: opened(
        path, os.O_WRONLY, lambda fd: write_all(fd, fill(seed, length), offset)
    ),
    "append": lambda path, length, seed: opened(
        path, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, fill(seed, length))
    ),
    "truncate": os.truncate,
    "punch": lambda path, offset, length: opened(
        path, os.O_RDWR, lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
    ),
    "map": lambda path, offset, length, seed: opened(
        path, os.O_RDWR, lambda fd: map_write(fd, offset, fill(seed, length))
    ),
    "copy": copy,
    "rename": os.rename,
    "exchange": exchange,
    "link": os.link,
    "unlink": os.unlink,
    "read": lambda path, offset, length: opened(path, os.O_RDONLY, lambda fd: digest(os.pread(fd, length, offset))),
    "map_read": lambda path, offset, length: opened(path, os.O_RDONLY, lambda fd: map_read(fd, offset, length)),
    "open": open_slot,
    "close": lambda slot: os.close(slots.pop(slot)),
    "slot_read": lambda slot, offset, length: digest(os.pread(slots[slot], length, offset)),
    "slot_write": lambda slot, offset, length, seed: write_all(slots[slot], fill(seed, length), offset),
    "slot_truncate": lambda slot, length: os.ftruncate(slots[slot], length),
}


def batch(operations):
    """What each operation says: null, a number, [length, digest], or the text of an error."""
    answers = []
    for name, *words in operations:
        try:
            answer = ACTIONS[name](*words)
            answers.append(answer if name in ("copy", "read", "map_read", "slot_read") else None)
        except OSError as error:
            answers.append(str(error))
    return answers


def everything():
    """All files by path: length and digest, how many names, and whether the listing knew it; then what is open."""
    files = {}
    for folder in sorted(os.listdir(".")):
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            continue
        for name in sorted(os.listdir(folder)):
            path = f"{folder}/{name}"
            about = os.stat(path)
            with open(path, "rb") as file:
                data = file.read()
            assert about.st_size == len(data), f"{path}: {about.st_size} and {len(data)} bytes"
            files[path] = [*digest(data), about.st_nlink]
    return [files, {slot: digest(os.pread(fd, 1 << 24, 0)) for slot, fd in sorted(slots.items())}]


def main():
    for line in sys.stdin:
        try:
            answer = {"value": eval(json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
