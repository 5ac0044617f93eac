"""Runs inside, in an empty folder of a workspace: what holds for files there. Prints a line `NAME ok` or `NAME WHY` for
every function below, in alphabetical order. Needs Python alone."""
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import socket
import stat
import sys
import tempfile
import time

libc = ctypes.CDLL(None, use_errno=True)
PUNCH_HOLE, KEEP_SIZE, COLLAPSE = 2, 1, 8
PAGE = 4096


def put(name, data=b""):
    with open(name, "wb") as file:
        file.write(data)


def get(name):
    with open(name, "rb") as file:
        return file.read()


def refused(number, call, *arguments):
    """The call fails with this error, and no other."""
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError(f"{call} succeeded")


def fallocate(fd, mode, offset, length):
    done = libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length))
    if done != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def in_child(function, *arguments):
    """Whatever it returns, in a process of its own."""
    with multiprocessing.Pool(1) as pool:
        return pool.apply(function, arguments)


def acl_is_refused():
    put("a")
    # One entry for somebody else: version 2, then tag, permissions and id of each (linux/posix_acl_xattr.h).
    refused(errno.EOPNOTSUPP, os.setxattr, "a", "system.posix_acl_access", bytes.fromhex("02000000"))


def append_by_two_processes_loses_nothing():
    workers = [multiprocessing.Process(target=append_lines, args=(letter,)) for letter in "xy"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = get("appended").splitlines()
    assert len(lines) == 400 and lines.count(b"x" * 99) == 200 and lines.count(b"y" * 99) == 200, len(lines)


def append_lines(letter):
    fd = os.open("appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(200):
        os.write(fd, letter.encode() * 99 + b"\n")
    os.close(fd)


def chmod_holds_but_for_set_user_id():
    put("m")
    for mode in [0o000, 0o600, 0o777, 0o1755]:
        os.chmod("m", mode)
        assert stat.S_IMODE(os.stat("m").st_mode) == mode, oct(mode)
    os.chmod("m", 0o6755)
    time.sleep(0.6)  # the kernel believes its own answer for half a second
    assert stat.S_IMODE(os.stat("m").st_mode) == 0o755


def chown_to_another_is_refused():
    put("o")
    me = os.stat("o")
    assert (me.st_uid, me.st_gid) == (1000, 1000), me
    os.chown("o", 1000, 1000)
    refused(errno.EPERM, os.chown, "o", 999, 999)
    refused(errno.EPERM, os.chown, "o", -1, 999)


def copy_file_range_copies():
    put("from", bytes(range(256)) * 64)
    with open("from", "rb") as one, open("to", "wb") as other:
        done = 0
        while done < 16384:
            done += os.copy_file_range(one.fileno(), other.fileno(), 16384 - done)
    assert get("to") == get("from")


def deep_trees_work():
    deep = os.open(".", os.O_RDONLY)
    for level in range(200):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    assert os.listdir(deep) == ["f"]
    os.close(deep)


def device_nodes_are_refused():
    for kind in [stat.S_IFCHR, stat.S_IFBLK]:
        refused(errno.EPERM, os.mknod, "device", kind | 0o600, os.makedev(1, 3))


def directory_times_follow_what_is_in_it():
    os.mkdir("dir")
    os.utime("dir", (1, 1))
    put("dir/new")
    assert os.stat("dir").st_mtime > 1
    assert os.stat("dir").st_nlink >= 2
    refused(errno.ENOTEMPTY, os.rmdir, "dir")


def fallocate_makes_room_and_keeps_the_size_if_asked():
    fd = os.open("room", os.O_RDWR | os.O_CREAT)
    fallocate(fd, 0, 0, 100_000)
    assert os.fstat(fd).st_size == 100_000 and os.fstat(fd).st_blocks * 512 >= 100_000
    fallocate(fd, KEEP_SIZE, 100_000, 200_000)
    assert os.fstat(fd).st_size == 100_000
    os.close(fd)


def fsync_is_answered():
    fd = os.open("synced", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def hard_links_are_one_file():
    put("one", b"1")
    os.link("one", "two")
    assert os.stat("one").st_ino == os.stat("two").st_ino and os.stat("one").st_nlink == 2
    with open("two", "ab") as file:
        file.write(b"2")
    assert get("one") == b"12"
    os.unlink("one")
    assert get("two") == b"12" and os.stat("two").st_nlink == 1


def locks_hold_among_processes():
    put("locked")
    with open("locked", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert in_child(try_lock, "flock") == errno.EWOULDBLOCK
        fcntl.flock(file, fcntl.LOCK_UN)
        assert in_child(try_lock, "flock") == 0
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
        assert in_child(try_lock, "fcntl") == errno.EAGAIN
        fcntl.lockf(file, fcntl.LOCK_UN)
        assert in_child(try_lock, "fcntl") == 0


def try_lock(kind):
    with open("locked", "r+b") as file:
        try:
            if kind == "flock":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
        except OSError as error:
            return error.errno
    return 0


def mmap_is_shared_by_processes_and_reaches_read_and_write():
    put("mapped", bytes(3 * PAGE))
    with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 3 * PAGE) as memory:
        memory[PAGE:PAGE + 6] = b"parent"
        assert in_child(map_and_answer) == b"parent"
        assert memory[:5] == b"child"
        memory.flush()
        assert get("mapped")[:PAGE + 6] == b"child".ljust(PAGE, b"\0") + b"parent"
        os.pwrite(file.fileno(), b"written", 2 * PAGE)
        assert memory[2 * PAGE:2 * PAGE + 7] == b"written"


def map_and_answer():
    with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 3 * PAGE) as memory:
        memory[:5] = b"child"
        return memory[PAGE:PAGE + 6]


def mmap_private_leaves_the_file_alone():
    put("private", b"a" * PAGE)
    with open("private", "r+b") as file, mmap.mmap(file.fileno(), PAGE, access=mmap.ACCESS_COPY) as memory:
        memory[:1] = b"b"
    assert get("private") == b"a" * PAGE


def names_of_255_bytes_and_of_any_bytes_work():
    longest = b"n" * 255
    odd = b"\xff\xfe\x80 \n\t\x01*?\\\"'"
    for name in [longest, odd, "ü-日本".encode()]:
        put(name, name)
        assert get(name) == name and name in os.listdir(b".")
    refused(errno.ENAMETOOLONG, put, b"n" * 256)
    os.rename(odd, b"\xe4")
    assert get(b"\xe4") == odd


def open_file_outlives_its_name():
    fd = os.open("gone", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"still here")
    os.unlink("gone")
    refused(errno.ENOENT, os.stat, "gone")
    os.ftruncate(fd, 5)
    os.fchmod(fd, 0o640)
    assert os.pread(fd, 100, 0) == b"still"
    assert (os.fstat(fd).st_size, os.fstat(fd).st_nlink, stat.S_IMODE(os.fstat(fd).st_mode)) == (5, 0, 0o640)
    os.close(fd)


def rename_exchanges_and_refuses_to_replace_when_asked():
    put("left", b"left")
    put("right", b"right")
    at = -100
    assert libc.renameat2(at, b"left", at, b"right", 2) == 0
    assert (get("left"), get("right")) == (b"right", b"left")
    assert libc.renameat2(at, b"left", at, b"right", 1) == -1 and ctypes.get_errno() == errno.EEXIST


def rename_over_an_open_file_leaves_both_whole():
    put("old", b"old content")
    put("new", b"new content")
    with open("old", "rb") as file:
        os.rename("new", "old")
        assert file.read() == b"old content" and os.fstat(file.fileno()).st_nlink == 0
    assert get("old") == b"new content"
    refused(errno.ENOENT, os.stat, "new")


def sockets_and_pipes_are_the_guests():
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("pipe", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 10) == b"through"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("sock")
        listener.listen()
        client.connect("sock")
        client.sendall(b"hello")
        assert listener.accept()[0].recv(10) == b"hello"


def sparse_files_are_sparse():
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 30)
    os.pwrite(fd, b"data", 1 << 20)
    assert os.fstat(fd).st_blocks < 64
    assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
    assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + PAGE
    refused(errno.ENXIO, os.lseek, fd, 1 << 21, os.SEEK_DATA)
    os.pwrite(fd, b"d" * 8 * PAGE, 0)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 2 * PAGE, 3 * PAGE)
    assert os.pread(fd, 8 * PAGE, 0) == b"d" * 2 * PAGE + bytes(3 * PAGE) + b"d" * 3 * PAGE
    assert (os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 2 * PAGE, os.SEEK_DATA)) == (2 * PAGE, 5 * PAGE)
    os.close(fd)


def symlinks_hold_any_text():
    for text in [b"nowhere", b"/etc/passwd", b"../..", b"\xff" * 10, b"x" * 4095]:
        os.symlink(text, "link")
        assert os.readlink(b"link") == text and os.lstat("link").st_size == len(text)
        os.unlink("link")
    put("target", b"t")
    os.symlink("target", "link")
    assert get("link") == b"t"


def times_are_kept_to_the_nanosecond():
    put("timed")
    wanted = (1_000_000_000_123_456_789, 1_600_000_000_987_654_321)
    os.utime("timed", ns=wanted)
    time.sleep(0.6)
    seen = os.stat("timed")
    assert (seen.st_atime_ns, seen.st_mtime_ns) == wanted, seen
    os.utime("timed", ns=(-1, -1))
    assert os.stat("timed").st_mtime_ns == -1
    before = time.time() - 1
    os.utime("timed")
    assert before < os.stat("timed").st_mtime < time.time() + 1


def tmpfile_is_refused_and_programs_make_a_named_one():
    refused(errno.EOPNOTSUPP, os.open, ".", os.O_TMPFILE | os.O_RDWR)
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(b"x")


def what_another_user_makes_is_the_agents():
    if os.geteuid() != 0:
        return  # root alone can become somebody else
    os.mkdir("open")
    os.chmod("open", 0o777)
    assert in_child(make_as, 999) == (1000, errno.EACCES)


def make_as(user):
    """A file that nobody else may read: its owner, and what opening it again says."""
    os.setuid(user)
    made = os.open("open/made", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.open("open/made", os.O_RDONLY)
    except OSError as error:
        return os.fstat(made).st_uid, error.errno
    return os.fstat(made).st_uid, 0


def xattr_is_refused():
    put("x")
    refused(errno.EOPNOTSUPP, os.setxattr, "x", "user.a", b"1")
    refused(errno.EOPNOTSUPP, os.getxattr, "x", "user.a")
    refused(errno.EOPNOTSUPP, os.listxattr, "x")


def main():
    multiprocessing.set_start_method("fork")
    private = {"main", "put", "get", "refused", "fallocate", "in_child", "append_lines", "try_lock", "map_and_answer", "make_as"}
    for name, function in sorted(globals().items()):
        if name in private or not callable(function) or getattr(function, "__module__", "") != "__main__":
            continue
        os.mkdir(name)
        os.chdir(name)
        try:
            function()
            said = "ok"
        except Exception as error:
            line = error.__traceback__
            while line.tb_next:
                line = line.tb_next
            said = f"{type(error).__name__} in line {line.tb_lineno}: {error}".replace("\n", " ")
        os.chdir("..")
        print(name, said, flush=True)


main()
