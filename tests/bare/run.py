#!/usr/bin/env python3
"""The bare guest on /dev/kvm: running, saving, and what the host sees. run.py [--list | WORD...]"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import godwit  # noqa: E402
import faults  # noqa: E402,F401  (its first test is the longest of all)
import checks  # noqa: E402,F401
import converge  # noqa: E402,F401
import damage  # noqa: E402,F401
import devices  # noqa: E402,F401
import handover  # noqa: E402,F401
import host  # noqa: E402,F401
import life  # noqa: E402,F401
import live  # noqa: E402,F401
import policy  # noqa: E402,F401
import saving  # noqa: E402,F401
import scale  # noqa: E402,F401
import stdio  # noqa: E402,F401
import strangers  # noqa: E402,F401
import throttle  # noqa: E402,F401


def requirement():
    if not os.path.exists(godwit.BARE):
        return "build/guest/bare.elf is not built (make)"
    if not godwit.doctor()["kvm"]:
        return "this host has no usable /dev/kvm (godwit doctor); tests/with-kvm bare runs them in the testbed"
    return None


godwit.main(requirement)
