"""`build.py make ROUND` makes what a Java build does in `target`, anew; `build.py check ROUND` reads all of it."""
import hashlib
import os
import shutil
import sys
import zipfile

CLASSES = 120


def content(number, turn):
    return f"{turn}:{number};".encode() * (10 + number * 37 % 900)


def make(turn):
    shutil.rmtree("target", ignore_errors=True)
    os.makedirs("target/classes/org/example")
    for number in range(CLASSES):
        path = f"target/classes/org/example/Class{number}.class"
        with open(path + ".tmp", "wb") as file:
            file.write(content(number, turn))
        os.rename(path + ".tmp", path)
    with zipfile.ZipFile("target/app.jar.part", "w", zipfile.ZIP_DEFLATED) as jar:
        for number in range(CLASSES):
            jar.write(f"target/classes/org/example/Class{number}.class", f"org/example/Class{number}.class")
    os.rename("target/app.jar.part", "target/app.jar")
    with open("target/app.jar", "rb") as jar, open("target/app.jar.sha256", "w") as digest:
        digest.write(hashlib.sha256(jar.read()).hexdigest())


def check(turn):
    names = sorted(os.listdir("target/classes/org/example"))
    assert names == sorted(f"Class{number}.class" for number in range(CLASSES)), names
    assert sorted(os.listdir("target")) == ["app.jar", "app.jar.sha256", "classes"], os.listdir("target")
    with open("target/app.jar", "rb") as jar, open("target/app.jar.sha256") as digest:
        assert hashlib.sha256(jar.read()).hexdigest() == digest.read()
    with zipfile.ZipFile("target/app.jar") as jar:
        assert jar.testzip() is None
        for number in range(CLASSES):
            wanted = content(number, turn)
            assert jar.read(f"org/example/Class{number}.class") == wanted, number
            with open(f"target/classes/org/example/Class{number}.class", "rb") as file:
                assert file.read() == wanted, number


{"make": make, "check": check}[sys.argv[1]](sys.argv[2])
