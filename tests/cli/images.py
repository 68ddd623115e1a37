"""Kernels, initrds and command lines that cannot be."""
import os
import struct

import godwit
from godwit import check, test
from refusal import RUN, bare, need_kvm, refused

EXPECTED = "expected a bzImage or an ELF with a PVH note"


def bzimage(payload=4096, **changes):
    """A bzImage that would be loaded, and does nothing good; changes by field name."""
    fields = {"setup_sects": (0x1f1, "B", 1), "syssize": (0x1f4, "I", payload // 16),
              "boot_flag": (0x1fe, "H", 0xaa55), "jump": (0x200, "H", 0x66eb),
              "magic": (0x202, "I", 0x53726448), "version": (0x206, "H", 0x20f),
              "loadflags": (0x211, "B", 1), "kernel_alignment": (0x230, "I", 0x200000),
              "initrd_addr_max": (0x22c, "I", 0x7fffffff),
              "relocatable_kernel": (0x234, "B", 1), "xloadflags": (0x236, "H", 1),
              "cmdline_size": (0x238, "I", 255), "pref_address": (0x258, "Q", 0x1000000),
              "init_size": (0x260, "I", 0x400000)}
    content = bytearray(1024 + payload)
    for name, (at, form, value) in fields.items():
        struct.pack_into("<" + form, content, at, changes.get(name, value))
    return bytes(content)


def kernel_refused(place, content, *words, more=()):
    need_kvm()
    path = place.file("kernel", content)
    refused(place, 1, [path, *words], *RUN, "--memory", "64M", "--kernel", path, *more)


@test
def kernel_missing_is_refused(place):
    need_kvm()
    path = place.path("none")
    refused(place, 1, [path, "kernel", "No such file"], *RUN, "--kernel", path)


@test
def kernel_empty_is_refused(place):
    kernel_refused(place, b"", "is empty")


@test
def kernel_that_is_a_directory_is_refused(place):
    need_kvm()
    refused(place, 1, [place.dir, "not a regular file"], *RUN, "--kernel", place.dir)


@test
def kernel_that_is_a_fifo_is_refused_and_not_waited_for(place):
    need_kvm()
    os.mkfifo(place.path("fifo"))
    refused(place, 1, ["fifo", "not a regular file"], *RUN, "--kernel", place.path("fifo"))


@test
def kernel_that_is_text_is_refused(place):
    kernel_refused(place, "#!/bin/sh\necho hello\n" * 50, "is a text file", EXPECTED)


@test
def kernel_of_nothing_known_is_refused(place):
    kernel_refused(place, bytes(range(256)) * 64, "is not a kernel", EXPECTED)


@test
def kernel_elf_that_is_truncated_is_refused(place):
    with open(godwit.BARE, "rb") as f:
        whole = f.read()
    for size in (10, 64, 100, 4000, len(whole) // 2):
        kernel_refused(place, whole[:size], "truncated" if size >= 64 else "")


@test
def kernel_bzimage_that_is_truncated_is_refused(place):
    for size in (0x206, 0x230, 0x264, 1024, 3000):
        kernel_refused(place, bzimage()[:size], "truncated")


@test
def kernel_for_32_bits_is_refused(place):
    kernel_refused(place, bzimage(xloadflags=0), "32-bit", "x86-64")


@test
def kernel_too_old_is_refused(place):
    kernel_refused(place, bzimage(version=0x204), "boot protocol 2.04", "2.12")


@test
def kernel_for_arm64_is_refused(place):
    image = bytearray(8192)
    image[0:4] = b"MZ\0\x91"
    image[56:60] = b"ARM\x64"
    kernel_refused(place, bytes(image), "arm64", EXPECTED)


@test
def kernel_elf_for_another_processor_is_refused(place):
    with open(godwit.BARE, "rb") as f:
        image = bytearray(f.read())
    struct.pack_into("<H", image, 18, 183)  # e_machine: AArch64
    kernel_refused(place, bytes(image), "x86-64")


@test
def kernel_elf_without_pvh_note_is_refused(place):
    with open(godwit.GODWIT, "rb") as f:
        kernel_refused(place, f.read(1 << 26), "PVH")


@test
def kernel_that_is_compressed_is_refused_with_advice(place):
    kernel_refused(place, b"\x1f\x8b" + bytes(8192), "gzip", "unpack")
    kernel_refused(place, b"\xfd7zXZ\0" + bytes(8192), "xz", "unpack")


@test
def kernel_larger_than_memory_is_refused(place):
    kernel_refused(place, bzimage(init_size=0x8000000), "the kernel needs memory", "KiB")
    kernel_refused(place, bzimage(pref_address=0x10000000), "the kernel needs memory", "KiB")


@test
def initrd_missing_is_refused(place):
    need_kvm()
    path = place.path("none")
    refused(place, 1, [path, "initrd", "No such file"], *bare("--initrd", path))


@test
def initrd_that_is_empty_or_a_directory_is_refused(place):
    need_kvm()
    refused(place, 1, ["is empty", "initrd"], *bare("--initrd", place.file("empty")))
    refused(place, 1, "not a regular file", *bare("--initrd", place.dir))


@test
def initrd_too_large_for_memory_is_refused(place):
    need_kvm()
    path = place.path("initrd")
    with open(path, "wb") as f:
        f.truncate(40 << 20)
    refused(place, 1, [path, "40960 KiB", "does not fit"], *bare("--initrd", path))
    refused(place, 1, [path, "40960 KiB", "does not fit"], *RUN, "--memory", "64M", "--initrd",
            path, "--kernel", place.file("kernel", bzimage(init_size=0x1000000)))


@test
def command_line_too_long_for_the_kernel_is_refused(place):
    need_kvm()
    kernel_refused(place, bzimage(), "command line has 256 bytes", "at most 255",
                   more=("--cmdline", "c" * 256))
    refused(place, 1, ["command line", "at most"], *bare("--cmdline", "c" * 70000))


@test
def machine_that_cannot_promise_its_memory_is_refused(place):
    need_kvm()
    with open("/proc/sys/vm/overcommit_memory") as f:
        if f.read().strip() == "1":
            raise godwit.Skip("this host promises any memory (vm.overcommit_memory is 1)")
    refused(place, 1, ["cannot promise", "MiB"], *bare("--memory", "12T"))


@test
def failed_start_leaves_a_disk_unlocked(place):
    need_kvm()
    disk = place.file("disk", bytes(1 << 20))
    refused(place, 1, "No such file", *RUN, "--kernel", place.path("none"), "--disk", disk)
    vm = place.bare("", "--memory", "32M", "--disk", disk)
    vm.wait_console("^ready")
    check(vm.running(), "it does not run")
