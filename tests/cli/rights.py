"""No /dev/kvm, no permission. Each in a mount namespace of its own with another /dev."""
import os
import pwd
import subprocess

import godwit
from godwit import Skip, check, test
from refusal import RUN, bare, refused
import devices

# Makes a /dev with the usual files, and what `more` says, then runs the rest of its words.
NEW_DEV = r"""
set -e
new=$1 more=$2; shift 2
mount -t tmpfs -o mode=755 none "$new"
for f in null zero urandom; do touch "$new/$f"; mount --bind "/dev/$f" "$new/$f"; done
mkdir "$new/net"
if [ -c /dev/net/tun ]; then touch "$new/net/tun"; mount --bind /dev/net/tun "$new/net/tun"; fi
(cd "$new" && eval "$more")
mount --move "$new" /dev
exec "$@"
"""


def other_dev(place, more=":"):
    """The words before a command that give it this /dev."""
    godwit.need_root()
    for program in ("unshare", "setpriv", "mknod"):
        godwit.need_program(program)
    os.makedirs(place.path("dev"), exist_ok=True)
    prefix = ["unshare", "--mount", "--propagation", "private", "bash", "-c", NEW_DEV, "bash",
              place.path("dev"), more]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        raise Skip(f"no mount namespace here: {tried.stderr.strip()}")
    return prefix


def as_nobody(place):
    nobody = pwd.getpwnam("nobody")
    os.chown(place.runtime, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
            "--inh-caps=-all", "--bounding-set=-all"]


@test
def host_without_dev_kvm_is_refused_with_advice(place):
    refused(place, 1, ["/dev/kvm does not exist", "module"], *bare(), prefix=other_dev(place))


@test
def dev_kvm_without_a_kvm_behind_it_is_refused(place):
    refused(place, 1, ["/dev/kvm", "module"], *bare(),
            prefix=other_dev(place, "mknod kvm c 10 254"))
    refused(place, 1, ["/dev/kvm", "not KVM"], *bare(),
            prefix=other_dev(place, "touch kvm; mount --bind /dev/null kvm"))


@test
def dev_kvm_without_permission_is_refused_with_the_group(place):
    prefix = other_dev(place, "mknod -m 660 kvm c 10 232; chgrp 4321 kvm")
    refused(place, 1, ["no permission to open /dev/kvm", "4321"], *bare(),
            prefix=[*prefix, *as_nobody(place)])
    prefix = other_dev(place, "mknod -m 600 kvm c 10 232")
    refused(place, 1, ["no permission to open /dev/kvm", "root"], *bare(),
            prefix=[*prefix, *as_nobody(place)])


@test
def doctor_tells_what_is_missing_and_does_not_fail_for_scripts(place):
    for more, word in ((":", "does not exist"), ("mknod -m 600 kvm c 10 232", "no permission")):
        prefix = [*other_dev(place, more), *as_nobody(place)]
        told = place.godwit("doctor", prefix=prefix)
        check(word in told.stdout + told.stderr, f"doctor: {told}")
        told = place.godwit("doctor", "--json", prefix=prefix)
        check('"kvm": false' in told.stdout and "kvm_error" in told.stdout, f"doctor: {told}")


@test
def kernel_without_permission_is_refused(place):
    path = place.file("kernel", b"secret")
    os.chmod(path, 0)
    refused(place, 1, [path, "Permission denied"], *RUN, "--kernel", path,
            prefix=[*other_dev(place, "mknod -m 666 kvm c 10 232"), *as_nobody(place)])


@test
def disk_without_permission_is_refused(place):
    path = devices.disk(place)
    os.chmod(path, 0o400)
    refused(place, 1, ["disk0", path, "Permission denied"], *bare("--disk", path),
            prefix=[*other_dev(place, "mknod -m 666 kvm c 10 232"), *as_nobody(place)])


@test
def tap_without_permission_is_refused(place):
    if not os.path.exists("/dev/net/tun"):
        raise Skip("there is no /dev/net/tun")
    name = devices.tap(place, "p", "user", "root")
    refused(place, 1, ["no permission", "root"], *bare("--net", f"tap={name}"),
            prefix=[*other_dev(place, "mknod -m 666 kvm c 10 232"), *as_nobody(place)])
    open_tun = ("mknod -m 666 kvm c 10 232; umount net/tun; rm net/tun; "
                "mknod -m 666 net/tun c 10 200")
    refused(place, 1, [f"tap '{name}'", "no permission"], *bare("--net", f"tap={name}"),
            prefix=[*other_dev(place, open_tun), *as_nobody(place)])


@test
def runtime_directory_without_permission_is_refused(place):
    prefix = [*other_dev(place, "mknod -m 666 kvm c 10 232"), *as_nobody(place)]
    os.chown(place.runtime, 0, 0)
    refused(place, 1, ["Permission denied", place.runtime], *bare(), prefix=prefix)


@test
def user_that_does_not_exist_is_refused(place):
    refused(place, 1, ["no user 'nosuchuser'"], *bare("--user", "nosuchuser"))


@test
def user_option_without_root_is_refused(place):
    prefix = [*other_dev(place, "mknod -m 666 kvm c 10 232"), *as_nobody(place)]
    refused(place, 1, ["only root", "'daemon'"], *bare("--user", "daemon"), prefix=prefix)


@test
def vm_without_root_runs_and_is_saved_and_restored(place):
    need = godwit.doctor()
    if not need["kvm"]:
        raise Skip("this host has no usable /dev/kvm (godwit doctor)")
    prefix = [*other_dev(place, "mknod -m 666 kvm c 10 232"), *as_nobody(place)]
    os.mkdir(place.path("theirs"))
    os.chmod(place.path("theirs"), 0o777)
    vm = place.bare("fill=4", "--memory", "32M", prefix=prefix)
    vm.wait_console("^ready")
    done = vm.cli("save", place.path("theirs/saved"), prefix=as_nobody(place))
    check(done.returncode == 0 and vm.wait() == 0, f"save: {done.stderr}")
    vm = place.restore(place.path("theirs/saved"), prefix=prefix)
    vm.send("c")
    vm.wait_console("^check ok")
    check(vm.cli("quit", prefix=as_nobody(place)).returncode == 0 and vm.wait() == 0, "quit")
