"""Options, values and verbs; nothing is opened yet, so all of it is exit code 2."""
import json
import os
import socket
import subprocess

import godwit
from godwit import add_test, check, test
from refusal import bare, need_kvm, refused

WRONG_USAGE = [
    # name, words of the sentence, the command's words
    ("verb_unknown", ["unknown verb 'statsu'", "did you mean status"], ["statsu", "web"]),
    ("verb_unknown_and_far_from_any", ["unknown verb 'frobnicate'", "--help"], ["frobnicate"]),
    ("option_unknown_to_run", ["'--memroy'", "did you mean --memory"], ["run", "--memroy", "1G"]),
    ("option_unknown_with_value", ["'--kernal'", "did you mean --kernel"], ["run", "--kernal=/x"]),
    ("option_unknown_to_restore", ["'--cpus'"], ["restore", "f", "--cpus", "2"]),
    ("option_unknown_to_verb", ["'--jsno'", "did you mean --json"], ["status", "web", "--jsno"]),
    ("option_short", ["'-m'"], ["run", "-m", "1G"]),
    ("option_without_value", ["'--memory' needs a value"], ["run", "--memory"]),
    ("option_with_value_too_many", ["'--paused' takes no value"], ["run", "--paused=yes"]),
    ("run_without_kernel", ["--kernel is missing"], ["run"]),
    ("run_with_an_operand", ["unexpected 'vmlinuz'"], ["run", "vmlinuz"]),
    ("kernel_empty_name", ["--kernel", "empty"], ["run", "--kernel", ""]),
    ("memory_zero", ["--memory", "at least 2M"], bare("--memory", "0")),
    ("memory_one_mib", ["--memory", "1M", "at least 2M"], bare("--memory", "1M")),
    ("memory_100_tib", ["--memory", "100T", "more than"], bare("--memory", "100T")),
    ("memory_no_number", ["--memory", "lots"], bare("--memory", "lots")),
    ("memory_unknown_unit", ["--memory", "12X"], bare("--memory", "12X")),
    ("memory_negative", ["--memory", "-1G"], bare("--memory=-1G")),
    ("memory_empty", ["--memory"], bare("--memory", "")),
    ("memory_over_64_bits", ["--memory"], bare("--memory", "99999999999999999999G")),
    ("memory_odd", ["--memory", "multiple of 4K"], bare("--memory", "16777217")),
    ("cpus_zero", ["--cpus", "0", "254"], bare("--cpus", "0")),
    ("cpus_5000", ["--cpus", "5000", "254"], bare("--cpus", "5000")),
    ("cpus_no_number", ["--cpus", "x"], bare("--cpus", "x")),
    ("cpus_fraction", ["--cpus", "1.5"], bare("--cpus", "1.5")),
    ("cpus_negative", ["--cpus", "-1"], bare("--cpus=-1")),
    ("dirty_ring_too_small", ["--dirty-ring", "1024", "65536"], bare("--dirty-ring", "512")),
    ("dirty_ring_odd", ["--dirty-ring", "power of two"], bare("--dirty-ring", "4095")),
    ("dirty_ring_too_large", ["--dirty-ring", "65536"], bare("--dirty-ring", "1M")),
    ("console_unknown", ["--console", "'serial'", "stdio"], bare("--console", "serial")),
    ("console_file_without_name", ["--console", "'file:'"], bare("--console", "file:")),
    ("name_bad_letters", ["--name", "'a/b'"], bare("--name", "a/b")),
    ("name_empty", ["--name", "empty"], bare("--name", "")),
    ("name_too_long", ["--name", "characters"], bare("--name", "n" * 300)),
    ("disk_empty_path", ["--disk", "empty"], bare("--disk", "")),
    ("disk_unknown_sub_option", ["--disk", "'readnly'", "did you mean readonly"],
     bare("--disk", "/d,readnly")),
    ("disk_serial_too_long", ["--disk", "serial", "at most 20"],
     bare("--disk", "/d,serial=" + "s" * 21)),
    ("disk_nbd", ["--disk", "nbd"], bare("--disk", "nbd://host/export")),
    ("disk_id_twice", ["'a'"], bare("--disk", "/x,id=a", "--disk", "/y,id=a")),
    ("disk_id_of_the_machine", ["'serial0'", "another"], bare("--disk", "/x,id=serial0")),
    ("id_of_disk_and_net", ["'a'"], bare("--disk", "/x,id=a", "--net", "tap=t0,id=a")),
    ("net_without_tap", ["--net", "tap=IF"], bare("--net", "mac=52:54:00:12:34:56")),
    ("net_bad_mac", ["--net", "'nonsense'", "MAC"], bare("--net", "tap=t0,mac=nonsense")),
    ("net_multicast_mac", ["--net", "multicast"], bare("--net", "tap=t0,mac=01:54:00:12:34:56")),
    ("net_name_too_long", ["--net", "characters"], bare("--net", "tap=" + "t" * 16)),
    ("channel_without_socket", ["--channel", "socket=PATH"], bare("--channel", "a.0")),
    ("channel_twice", ["--channel", "'a.0'", "twice"],
     bare("--channel", "a.0,socket=/a", "--channel", "a.0,socket=/b")),
    ("restore_without_file", ["file", "missing"], ["restore"]),
    ("restore_of_two_files", ["unexpected 'b'"], ["restore", "a", "b"]),
    ("restore_override_without_value", ["--disk", "'disk0'", "="],
     ["restore", "f", "--disk", "disk0"]),
    ("receive_without_listen", ["--listen is missing", "tcp:HOST:PORT"], ["receive"]),
    ("receive_from_nonsense", ["--listen", "'nonsense'", "tcp:HOST:PORT"], ["receive", "--listen", "nonsense"]),
    ("receive_from_no_port", ["--listen", "the port", "'x'"], ["receive", "--listen", "tcp:host:x"]),
    ("receive_from_a_file", ["--listen", "not a place to listen on"], ["receive", "--listen", "file:/tmp/x"]),
    ("set_without_name", ["set", "the VM's name is missing"], ["set"]),
    ("set_without_value", ["set", "PARAM=VALUE", "'downtime'"], ["set", "web", "downtime"]),
    ("policy_unknown", ["--policy", "'fastest' is neither a policy (minimal-downtime, suspend-workload-if-needed, "
     "post-copy) nor a file"], ["migrate", "web", "tcp:b:1", "--policy", "fastest"]),
    ("policy_file_missing", ["--policy", "cannot read the policy /nonexistent/p", "No such file"],
     ["migrate", "web", "tcp:b:1", "--policy", "/nonexistent/p#mine"]),
    ("policy_file_is_a_directory", ["--policy", "cannot read the policy /"],
     ["migrate", "web", "tcp:b:1", "--policy", "/"]),
    ("set_policy_unknown", ["policy", "'fastest' is neither"], ["set", "web", "policy=fastest"]),
    ("timeout_per_gb", ["--timeout", "'800/GB'", "800/GiB"], ["migrate", "web", "tcp:b:1", "--timeout", "800/GB"]),
    ("timeout_action_unknown", ["--timeout-action", "'kill' is not abort, force or post-copy"],
     ["migrate", "web", "tcp:b:1", "--timeout-action", "kill"]),
    ("progress_timeout_negative", ["--progress-timeout", "'-1' is not a number"],
     ["migrate", "web", "tcp:b:1", "--progress-timeout=-1"]),
    ("check_and_detach", ["--check moves nothing", "--detach"], ["migrate", "web", "tcp:b:1", "--check", "--detach"]),
    ("check_of_a_file", ["--check needs a destination that answers", "not file:/x"],
     ["migrate", "web", "file:/x", "--check"]),
    ("set_json_with_values", ["--json"], ["set", "web", "downtime=1", "--json"]),
    ("save_without_file", ["save", "missing"], ["save", "web"]),
    ("status_without_name", ["status", "missing"], ["status"]),
    ("pause_with_too_much", ["pause", "unexpected 'more'"], ["pause", "web", "more"]),
    ("shutdown_timeout_no_number", ["--timeout", "soon"], ["shutdown", "web", "--timeout", "soon"]),
    ("inspect_without_file", ["file", "missing"], ["inspect"]),
    ("inspect_unknown_option", ["'--tere'", "did you mean --tree"], ["inspect", "f", "--tere"]),
    ("name_twice", ["'--name' is given twice"], bare("--name", "a", "--name", "b")),
    ("memory_twice", ["'--memory' is given twice"], bare("--memory", "1G", "--memory=1G")),
    ("allow_path_that_is_not_there", ["--allow-path", "'/nowhere'", "No such file"],
     ["receive", "--listen", "tcp::1", "--allow-path", "/nowhere"]),
    ("allow_path_that_is_no_directory", ["--allow-path", "'/dev/null'", "no directory"],
     ["receive", "--listen", "tcp::1", "--allow-path", "/dev/null"]),
    ("listen_twice", ["'--listen' is given twice"], ["receive", "--listen", "tcp::1", "--listen", "tcp::2"]),
    ("disk_override_twice", ["--disk", "'disk0' is given twice"],
     ["restore", "f", "--disk", "disk0=a", "--disk", "disk0=b"]),
    ("disk_serial_twice", ["--disk", "'serial' is given twice"], bare("--disk", "/d,serial=a,serial=b")),
    ("bandwidth_twice", ["'--bandwidth' is given twice"],
     ["migrate", "web", "tcp:b:1", "--bandwidth", "1M", "--bandwidth", "2M"]),
    ("timeout_twice", ["'--timeout' is given twice"], ["shutdown", "web", "--timeout", "1", "--timeout", "2"]),
    ("parameter_twice", ["downtime-limit", "given twice"], ["set", "web", "downtime=1", "downtime-limit=2"]),
    ("parameter_without_name", ["PARAM=VALUE", "'=5'"], ["set", "web", "=5"]),
    ("parameter_empty", ["downtime", "''"], ["set", "web", "downtime="]),
    ("parameter_unknown", ["'downtme'", "did you mean downtime"], ["set", "web", "downtme=5"]),
    ("parameter_long_name", ["unknown parameter"], ["set", "web", "p" * 5000 + "=1"]),
    ("bandwidth_in_bits", ["--bandwidth", "'100Mb' is not a size in bytes"],
     ["migrate", "web", "tcp:b:1", "--bandwidth", "100Mb"]),
    ("memory_in_fractions", ["--memory", "'1.5G' is not a size"], bare("--memory", "1.5G")),
    ("size_that_is_long", ["--memory", "too large"], bare("--memory", "9" * 5000)),
    ("value_that_is_long", ["--cpus"], bare("--cpus", "9" * 5000)),
    ("option_that_is_long", ["unknown option"], ["run", "--" + "o" * 5000]),
    ("verb_that_is_long", ["unknown verb"], ["v" * 5000]),
    ("verb_that_is_empty", ["unknown verb ''"], [""]),
    ("migrate_to_an_empty_uri", ["'': expected tcp:HOST:PORT"], ["migrate", "web", ""]),
    ("migrate_without_uri", ["URI is missing"], ["migrate", "web"]),
    ("cancel_without_name", ["cancel", "missing"], ["cancel"]),
    ("resume_with_json", ["'--json'"], ["resume", "web", "--json"]),
    ("list_with_a_name", ["list", "unexpected 'web'"], ["list", "web"]),
    ("inspect_two_files", ["inspect", "unexpected 'b'"], ["inspect", "a", "b"]),
    ("shutdown_timeout_negative", ["--timeout", "'-1'"], ["shutdown", "web", "--timeout=-1"]),
    ("shutdown_timeout_of_a_year", ["--timeout", "86400"], ["shutdown", "web", "--timeout", "31536000"]),
    ("report_of_no_kind", ["--report", "'report.txt'", ".html"],
     ["migrate", "web", "tcp:b:1", "--report", "report.txt"]),
    ("report_without_a_name", ["--report", "''"], ["migrate", "web", "tcp:b:1", "--report", ""]),
    ("doctor_with_an_operand", ["unexpected 'me'"], ["doctor", "me"]),
]
for _name, _words, _args in WRONG_USAGE:
    add_test(f"{_name}_is_wrong_usage",
             lambda place, words=_words, args=_args: refused(place, 2, words, *args))


@test
def damaged_policy_is_refused_with_its_path(place):
    item = {"action": "setDowntime", "params": ["100"]}
    policy = {"id": {"uuid": "80554327-0569-496b-bdeb-fcbbf52b827d"}, "name": "mine", "maxMigrations": 1,
              "autoConvergence": False, "migrationCompression": False, "enableGuestEvents": False,
              "config": {"initialItems": [item], "convergenceItems": [
                  {"stallingLimit": 1, "convergenceItem": {"action": "foo", "params": []}}],
                  "lastItems": [{"action": "abort", "params": []}]}}

    def is_refused(words, what, which=""):
        file = place.file("policy.json", json.dumps(what).encode())
        refused(place, 2, ["--policy", file, *words], "migrate", "web", "tcp:b:1", "--policy", file + which)

    is_refused(["$.config.convergenceItems[0].convergenceItem.action: unknown action 'foo' (known: "], policy)
    is_refused(["$[1].config.convergenceItems[0].convergenceItem.action: unknown action"],
               [{"name": "other"}, policy], "#mine")
    is_refused(["$: no policy is called 'yours' (there are: mine)"], [policy], "#yours")
    is_refused(["$: there are 2 policies; choose one by its name or uuid (mine, mine)"], [policy, policy])
    policy["config"]["convergenceItems"] = []
    policy["config"]["lastItems"] = [{"action": "setDowntime", "params": ["5000"]}]
    is_refused(["$.config.lastItems: neither 'abort' nor 'postcopy'", "would never end"], policy)


ODD = ["", "-", "--", "--=", "=", "--help=yes", "%s%n%s", "a\nb", "\x1b[2J\u009b2J\u201c", b"\xff\xfe", ".", "..", "../x", "/",
       "/dev/null", "a" * 70, "/" + "a" * 4096, "-1", "18446744073709551616", "fd:0", "tcp:[::1", "unix:", "file:"]
VERBS = {"status": 1, "shutdown": 1, "set": 1, "save": 2, "migrate": 2, "inspect": 1, "restore": 1, "list": 0, "doctor": 0}


@test
def odd_words_are_refused_in_one_printable_line(place):
    commands = [[verb, *["ghost"] * (n - 1), word] for verb, n in VERBS.items() for word in ODD]
    commands += [[verb, "ghost", "more", word] for verb in VERBS for word in ("", "\x1b[2J")]
    commands += [["run", option, word] for option in ("--kernel", "--memory", "--name", "--disk", "--net", "--channel", "--console",
                                                      "--control", "--user") for word in ODD[:10]]
    commands += [["receive", "--listen", word] for word in ODD if word != "unix:"]
    for args in commands:
        if args[:2] in (["list", "--"], ["doctor", "--"]):
            continue
        done = subprocess.run([godwit.GODWIT, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=godwit.GUARD_S,
                              env=place.environment())
        check(done.returncode in (1, 2), f"{args}: {done}")
        said = done.stderr.decode()  # UTF-8, whatever was typed
        check(said.startswith("godwit: ") and said.endswith("\n") and said[:-1].isprintable(), f"{args}: {said!r}")
        check(not place.leftovers(), f"{args}: left behind: {place.leftovers()}")


@test
def no_word_at_all_prints_the_verbs(place):
    done = place.godwit()
    check(done.returncode == 2 and "usage:" in done.stdout + done.stderr, f"{done}")


@test
def help_and_version_are_no_errors(place):
    verbs = ("run restore save list status pause resume reset shutdown quit inspect doctor").split()
    for args in (["--help"], ["--version"], *([verb, "--help"] for verb in verbs)):
        done = place.godwit(*args)
        check(done.returncode == 0 and done.stdout and not done.stderr, f"{args}: {done}")


@test
def output_that_is_lost_is_an_error(place):
    place.file("text", "no stream")
    for args in (["--help"], ["--version"], ["run", "--help"], ["migrate", "--help"], ["list"], ["list", "--json"],
                 ["doctor"], ["doctor", "--json"]):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([godwit.GODWIT, *args], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                  text=True, env=place.environment())
        check(done.returncode == 1, f"{args}: {done}")
        check(done.stderr.startswith("godwit: ") and done.stderr.endswith("No space left on device\n") and
              done.stderr.count("\n") == 1 and "output was lost" in done.stderr, f"{args}: {done}")


@test
def output_of_a_vms_verbs_that_is_lost_is_an_error(place):
    need_kvm()
    vm = place.bare("", "--memory", "32M")
    vm.wait_console("^ready")
    for args in (["status", vm.name], ["status", vm.name, "--json"], ["set", vm.name], ["list"]):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([godwit.GODWIT, *args], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                  text=True, env=place.environment())
        check(done.returncode == 1 and "output was lost" in done.stderr, f"{args}: {done}")
    saved = place.path("saved")
    # The code tells where the guest is.
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([godwit.GODWIT, "save", vm.name, saved], stdin=subprocess.DEVNULL, stdout=full,
                              stderr=subprocess.PIPE, text=True, env=place.environment())
    check(done.returncode == 0 and "save: output was lost" in done.stderr and vm.wait() == 0, f"save: {done}")
    for option in ((), ("--tree",), ("--states",), ("--pages",)):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([godwit.GODWIT, "inspect", saved, *option], stdin=subprocess.DEVNULL, stdout=full,
                                  stderr=subprocess.PIPE, text=True, env=place.environment())
        check(done.returncode == 1 and "output was lost" in done.stderr, f"inspect {option}: {done}")


@test
def verbs_for_a_vm_that_is_not_there_say_where_they_looked(place):
    for verb in ("status", "pause", "resume", "reset", "shutdown", "quit"):
        refused(place, 1, ["no VM named 'ghost'", place.runtime], verb, "ghost")
    refused(place, 1, "no VM named 'ghost'", "save", "ghost", place.path("saved"))
    for verb in ("status", "pause"):
        refused(place, 1, "no control socket at", verb, place.path("nothing"))
        refused(place, 1, "not a control socket", verb, place.file("file", b"text"))
        refused(place, 1, "characters", verb, "/" + "x" * 200)
    check(not os.path.exists(place.path("saved")), "save has made a file")
    done = place.godwit("list")
    check(done.returncode == 0 and "ghost" not in done.stdout and not done.stderr, f"{done}")


@test
def name_in_use_is_refused_and_its_owner_unharmed(place):
    need_kvm()
    first = place.bare("", "--memory", "32M", name="taken")
    first.wait_console("^ready")
    second = place.godwit(*bare("--name", "taken"))
    check(second.returncode == 1 and second.stderr.startswith("godwit: ") and
          "the name 'taken' is in use" in second.stderr, f"{second}")
    check(second.stderr.count("\n") == 1, f"{second.stderr}")
    check(first.cli("status").returncode == 0, "the first one no longer answers")


@test
def control_path_too_long_is_refused(place):
    refused(place, 1, ["the path of a socket", "characters", "107"],
            *bare("--control", "/tmp/" + "c" * 120))
    refused(place, 1, "characters", *bare("--name", "web"),
            env={"GODWIT_RUNTIME_DIR": place.path("d" * 120)})


@test
def control_path_that_is_something_else_is_left_alone(place):
    path = place.file("precious", b"data")
    refused(place, 1, [path, "not a socket", "left alone"], *bare("--control", path))
    with open(path, "rb") as f:
        check(f.read() == b"data", "the file has changed")
    os.mkdir(place.path("directory"))
    refused(place, 1, "not a socket", *bare("--control", place.path("directory")))
    os.symlink(path, place.path("link"))
    refused(place, 1, "not a socket", *bare("--control", place.path("link")))
    refused(place, 1, "No such file or directory", *bare("--control", place.path("no/such/dir")))


@test
def control_socket_of_another_program_is_left_alone(place):
    path = place.path("other")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(1)
        refused(place, 1, [path, "in use"], *bare("--control", path))
        check(os.path.exists(path), "its socket is gone")
    os.unlink(path)


@test
def stale_control_socket_is_replaced(place):
    need_kvm()
    path = place.path("stale")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    vm = place.bare("", "--memory", "32M", "--control", path)
    vm.wait_console("^ready")
    check(place.godwit("status", path).returncode == 0, "nobody answers there")
    check(place.godwit("quit", path).returncode == 0 and vm.wait() == 0, "quit")
    check(not os.path.exists(path), "the socket is left behind")


@test
def runtime_directory_that_cannot_be_is_refused(place):
    refused(place, 1, place.file("file", b""), *bare("--name", "web"),
            env={"GODWIT_RUNTIME_DIR": place.path("file")})
    check(os.path.isfile(place.path("file")), "the file is gone")


@test
def console_that_cannot_be_opened_is_refused(place):
    need_kvm()
    refused(place, 1, "No such file or directory",
            *bare("--console", f"file:{place.path('no/such/dir')}"))
    os.mkdir(place.path("directory"))
    refused(place, 1, "directory", *bare("--console", f"file:{place.path('directory')}"))
    refused(place, 1, "not a socket", *bare("--console", f"unix:{place.file('file', b'x')}"))
    refused(place, 1, "characters", *bare("--console", "unix:/tmp/" + "c" * 120))


@test
def channel_socket_that_cannot_be_is_refused(place):
    need_kvm()
    refused(place, 1, "not a socket", *bare("--channel", f"a.0,socket={place.file('file', b'x')}"))
    refused(place, 1, "No such file", *bare("--channel", f"a.0,socket={place.path('no/dir')}"))


@test
def restore_of_something_else_is_refused(place):
    restore = ("restore", "--console", "null")
    refused(place, 1, "not a godwit stream", *restore, place.file("text", "hello\n" * 99))
    refused(place, 1, "truncated", *restore, place.file("empty", b""))
    refused(place, 1, "directory", *restore, place.dir)
    refused(place, 1, "No such file", *restore, place.path("missing"))
    refused(place, 1, "not a godwit stream", *restore, godwit.BARE)
    refused(place, 1, "not a godwit stream", "inspect", place.path("text"))
    refused(place, 1, "directory", "inspect", place.dir)


@test
def restore_with_an_override_for_what_is_not_there_is_refused(place):
    need_kvm()
    disk = place.file("disk", bytes(1 << 20))
    vm = place.bare("", "--memory", "32M", "--disk", disk, "--channel",
                    f"a.0,socket={place.path('channel')}")
    vm.wait_console("^ready")
    check(vm.cli("save", place.path("saved")).returncode == 0 and vm.wait() == 0, "save")
    restore = ("restore", "--console", "null", place.path("saved"))
    refused(place, 1, ["'disk7'", "disk0"], *restore, "--disk", f"disk7={disk}")
    refused(place, 1, ["'net0'"], *restore, "--net", "net0=tap:t0")
    refused(place, 1, ["'b.0'", "a.0"], *restore, "--channel", "b.0,socket=/tmp/x")
    other = place.file("larger", bytes(2 << 20))
    refused(place, 1, ["disk0"], *restore, "--disk", f"disk0={other}")
    os.unlink(disk)
    refused(place, 1, ["disk0", disk, "No such file"], *restore)
    moved = place.file("moved", bytes(1 << 20))
    again = place.restore(place.path("saved"), "--disk", f"disk0={moved}")
    again.send("p")
    again.wait_console("^progress")
