#!/usr/bin/env python3
"""Bad input on the command line: a sentence, exit 1 or 2, nothing left behind.

run.py [--list | --times | WORD...]. Most of it needs /dev/kvm; what does not, runs without.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))

import godwit  # noqa: E402
import devices  # noqa: E402,F401
import images  # noqa: E402,F401
import manual  # noqa: E402,F401
import rights  # noqa: E402,F401
import scripts  # noqa: E402,F401
import wire  # noqa: E402,F401
import words  # noqa: E402,F401

godwit.main(lambda: None if os.path.exists(godwit.GODWIT) else "build/godwit is not built (make)")
