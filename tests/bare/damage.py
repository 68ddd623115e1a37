"""Saved files that are damaged, cut off, foreign or newer: a sentence, and nothing stays."""
import os
import struct

import bare
import stream
from godwit import check, test


def saved(place):
    """The content of a small machine's file."""
    vm = place.bare("fill=1", "--memory", "16M")
    bare.ready(vm)
    done = vm.cli("save", place.path("good"))
    check(done.returncode == 0 and vm.wait() == 0, f"save: {done.stderr}")
    with open(place.path("good"), "rb") as f:
        return f.read()


def refused(place, content, what, *words):
    path = place.file("bad", content)
    done = place.godwit("restore", path, "--name", "bad", "--console", "null")
    check(done.returncode == 1, f"{what}: exit {done.returncode}, {done.stderr}")
    lines = done.stderr.splitlines()
    check(len(lines) == 1 and lines[0].startswith("godwit: "), f"{what}: stderr {done.stderr!r}")
    check(done.stdout == "", f"{what}: it has printed {done.stdout!r}")
    for word in (path, *words):
        check(word in lines[0], f"{what}: no '{word}' in: {lines[0]}")
    check(os.listdir(place.runtime) == [], f"{what}: left behind {os.listdir(place.runtime)}")
    looked = place.godwit("inspect", path)
    check(looked.returncode == 1 and looked.stderr.startswith("godwit: "),
          f"{what}: inspect says {looked.returncode}, {looked.stderr!r}")


def kinds(content):
    """The first record of each kind, for tests that need not go through all of them."""
    found = {}
    for record in stream.records(content):
        found.setdefault(record.name, record)
    return found


@test
def truncated_file_is_refused_wherever_it_ends(place):
    content = saved(place)
    for name, record in kinds(content).items():
        cuts = {record.offset, record.offset + 1, record.offset + stream.HEAD.size}
        for part in (record.body, record.data):
            if part.size:
                cuts |= {part.offset + part.size // 2, part.offset + part.size - 1}
        for cut in sorted(cuts - {0, len(content)}):
            refused(place, content[:cut], f"cut in {name} at {cut}", "truncated")
    refused(place, b"", "empty file")


@test
def damaged_file_is_refused_wherever_a_bit_is_wrong(place):
    content = saved(place)
    for name, record in kinds(content).items():
        places = [record.offset + n for n in (0, 2, 5, 9, 17, 21, 25)]
        for part in (record.body, record.data):
            if part.size:
                places += [part.offset, part.offset + part.size // 2, part.offset + part.size - 1]
        for at in places:
            flipped = bytearray(content)
            flipped[at] ^= 0x10
            refused(place, bytes(flipped), f"bit flipped in {name} at {at}")


@test
def file_of_a_newer_version_is_refused_by_its_number(place):
    content = saved(place)
    hello = kinds(content)["HELLO"]
    body = bytearray(content[hello.body.offset:hello.body.offset + hello.body.size])
    version = struct.unpack_from("<I", body, 8)[0]
    check(version >= 1, f"version {version}")
    struct.pack_into("<I", body, 8, version + 1)
    refused(place, stream.with_body(content, hello, bytes(body)), "newer", "newer godwit",
            f"version {version + 1}")


@test
def file_of_another_architecture_is_refused_by_its_name(place):
    content = saved(place)
    hello = kinds(content)["HELLO"]
    body = bytearray(content[hello.body.offset:hello.body.offset + hello.body.size])
    body[16:28] = b"aarch64".ljust(12, b"\0")
    refused(place, stream.with_body(content, hello, bytes(body)), "foreign", "aarch64")


@test
def file_of_something_else_is_refused_as_such(place):
    refused(place, b"#!/bin/sh\necho hello\n" * 10, "script", "not a godwit stream")
    refused(place, b"\x7fELF" + bytes(4096), "ELF", "not a godwit stream")
    refused(place, bytes(8192), "zeros", "not a godwit stream")
