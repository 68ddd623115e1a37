"""The control socket beside QEMU's: the same bytes are sent to both, and what they execute and answer is compared."""
import json
import os
import socket
import subprocess

from godwit import add_test, check, need_program, wait_until



def ask(ident):
    return b'{"execute":"query-status","id":' + ident + b"}"


# Behind each comes one that is right.
INPUTS = {
    "single_quotes": [b"{'execute':'query-status','id':'a'}", b"{'execute':'query-status','id':'it\\'s \"x\"'}",
                      b"{\"execute\":\"query-status\",\"id\":\"it\\'s\"}", ask(b"'\\u0041\\\"'"), ask(b"'{[\"'"),
                      b"{'execute\":'query-status'}\n"],
    "broken_then_right": [
        b"{'execute':}", b"{'execute':]", b"{'execute':'query-status',}", b"{'execute':'query-status' 2}", b"{x:1}",
        b"{'execute':'query-status','id':-}", b"{'execute':'query-status','id':tru}", b"{'a':1,'a':2}", b"}", b"]", b",",
        b"nonsense ", b"7 ", b"[1,2]", b"'x' ", b"null ", b"[{'execute':'stop'}]", b"%d", b"// comment\n", b"\xef\xbb\xbf",
        b"{'execute':'query-status','id':1}x", b"{'execute':'query-status'}}", b"\xc3\xa9", b"#", b"{'execute':'a\nb'}\n"],
    "ended_by_a_byte": [
        b"\xff", b"\x01", b"\x00", b"\x1f\x0b", b"\xfe\n\xff\n", b"{'execute':\xff", b"{'execute':\x01", b"{'execute':'a\xff",
        b"{'execute':'a\x01", b"{'execute':'a\\\xff", b"[[{\xff", b"{'execute':'query-status','id':[1\x02", b"nonsense\xff",
        b"'text\xff", b"{'execute':'query-status','id':{'a':'\xff"],
    "ids": [ask(i) for i in (
        b"18446744073709551615", b"-9223372036854775808", b"9223372036854775808", b"0", b"-1", b"1.5", b"null", b"true",
        b"[1,'x',null,true,{}]", b"{'a':{'b':[]}}", b"''", b"'\\u0000'", b"'a\\u0000b'", b"'\xc3\xa9'", b"'\\ud83d\\ude00'",
        b"'\xf0\x9f\x98\x80'", b"'\x7f'", b"'\\/\\b\\f\\n\\r\\t'", b"'<>&'", b"'\\u00e9'")],
    "no_ids": [ask(i) for i in (b"'\\ud83d'", b"'\xed\xa0\x80'", b"'\x80'", b"'\\x'", b"'\\u12'", b"{'a':1,'a':2}", b"")],
    "envelopes": [b"{}", b"{'execute':1}", b"{'exec-oob':'query-status'}", b"{'execute':'query-status','more':1,'id':3}",
                  b"{'execute':'n\xc3\xa9','id':4}", b"{'execute':'query-status','arguments':[],'id':5}",
                  b"{'execute':'query-status','arguments':{'a':1},'id':6}", b"{'execute':'qmp_capabilities','id':7}",
                  b"{'execute':'migrate-set-parameters','arguments':{'downtime-limit':18446744073709551615},'id':8}",
                  b"{'execute':'migrate-set-parameters','arguments':{'downtime-limit':1.0},'id':9}",
                  b"{'execute':'migrate-set-parameters','arguments':{'downtime-limit':'1'},'id':10}",
                  b"{'execute':'migrate-set-parameters','arguments':{'downtime-limit':5,'multifd-channels':0},'id':11}"],
}


def replies(path, sent):
    """What comes back for these bytes and the end of the connection: ids and outcomes, ASCII, in order."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)

        def connect():
            try:
                s.connect(path)
                return True
            except (FileNotFoundError, ConnectionRefusedError):  # QEMU makes the socket before it listens
                return False

        wait_until(connect, f"a listener at {path}")
        s.sendall(b"{'execute':'qmp_capabilities'}" + sent + b"{'execute':'query-status','id':'end'}")
        got = b""
        while b'"id": "end"' not in got or not got.endswith(b"\n"):
            some = s.recv(65536)
            check(some, f"{sent!r}: the connection was closed: {got!r}")
            got += some
    lines = got.decode("ascii").split("\r\n")
    check(lines[-1] == "" and '"QMP"' in lines[0], f"{got!r}")
    found = []
    for reply in map(json.loads, lines[1:-1]):
        # How many errors one fault makes is nobody's business.
        if "id" in reply or "return" in reply:
            found.append((json.dumps(reply.get("id", "(none)"), sort_keys=True),
                          reply.get("error", {"class": "return"})["class"]))
    return found


def compare(place, inputs):
    need_program("qemu-system-x86_64")
    ours, theirs = place.socket_path("wire"), place.path("qemu")
    vm = place.vm("receive", "--listen", f"unix:{place.path('in')}", name="wire", console=None)
    qemu = subprocess.Popen(["qemu-system-x86_64", "-M", "none", "-S", "-display", "none", "-serial", "none", "-monitor",
                             "none", "-qmp", f"unix:{theirs},server=on,wait=off"], stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists(ours) and os.path.exists(theirs), "both sockets")
        for sent in inputs:
            here, there = replies(ours, sent), replies(theirs, sent)
            check(here == there, f"{sent!r}: {here}, and QEMU's {there}")
    finally:
        qemu.kill()
        qemu.wait()
    check(vm.cli("quit").returncode == 0 and vm.wait() == 0, "quit")


for _name, _inputs in INPUTS.items():
    add_test(f"wire_is_that_of_qemu_with_{_name}", lambda place, inputs=_inputs: compare(place, inputs))
