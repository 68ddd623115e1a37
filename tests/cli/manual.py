"""The man pages and --help say the same: what one of them has, the other has too."""
import glob
import os
import re
import subprocess

import godwit
from godwit import add_test, check, test

REPO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
MAN = os.path.join(REPO, "man")
# Every verb has the first, and the program itself both: godwit(1) documents them once.
COMMON = {"help", "version"}


def help_of(*verb):
    return subprocess.run([godwit.GODWIT, *verb, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout


def verbs():
    return re.findall(r"^  ([a-z]+)\b", help_of(), re.M)


def options_of_help(text):
    """Those of the usage line, and those that have a line of their own."""
    usage, _, rest = text.partition("\n")
    return (set(re.findall(r"--([a-z][a-z-]*)", usage)) | set(re.findall(r"^ +--([a-z][a-z-]*)", rest, re.M))) - COMMON


def parameters_of_help():
    return set(re.findall(r"^  ([a-z][a-z-]*)=", help_of("set"), re.M))


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def pages():
    return {os.path.basename(path): read(path) for path in glob.glob(os.path.join(MAN, "*.[1-8]"))}


def synopsis_verbs(text):
    synopsis = text.split(".Sh SYNOPSIS", 1)[-1].split(".Sh ", 1)[0] if ".Sh SYNOPSIS" in text else ""
    return re.findall(r"^\.Cm ([a-z]+)", synopsis, re.M)


def options_of_page(text):
    """Those that have an item of their own."""
    return set(re.findall(r"^\.(?:It |It Xo\n\.)Fl -([a-z][a-z-]*)", text, re.M)) - COMMON


def words_of_page(text):
    return set(re.findall(r"\bFl -([a-z][a-z-]*)", text)) - COMMON


def parameters_of_page(text):
    return set(re.findall(r"^\.It Cm ([a-z][a-z-]*) Ns =", text, re.M))


@test
def each_verb_is_in_the_synopsis_of_one_page(place):
    found = sorted(verb for text in pages().values() for verb in synopsis_verbs(text))
    check(found == sorted(verbs()), f"{found}, and --help has {sorted(verbs())}")


def page_has_each_option(place, verb):
    name, text = next((n, t) for n, t in pages().items() if verb in synopsis_verbs(t))
    missing = options_of_help(help_of(verb)) - options_of_page(text)
    check(not missing, f"{name} has no item for {verb}'s {sorted(missing)}")


for _verb in verbs() if os.path.exists(godwit.GODWIT) else []:
    add_test(f"manual_has_each_option_of_{_verb}", lambda place, verb=_verb: page_has_each_option(place, verb))


@test
def manual_documents_no_option_that_no_verb_of_its_page_has(place):
    every = set().union(*(options_of_help(help_of(verb)) for verb in verbs()))
    for name, text in pages().items():
        known = set().union(*(options_of_help(help_of(verb)) for verb in synopsis_verbs(text)))
        check(options_of_page(text) <= known, f"{name}: {sorted(options_of_page(text) - known)}")
        # Elsewhere in its text it may name another page's; QEMU's begin with one dash.
        check(words_of_page(text) <= every, f"{name}: {sorted(words_of_page(text) - every)}")


@test
def manual_and_help_have_the_same_parameters(place):
    written = set().union(*(parameters_of_page(text) for text in pages().values()))
    check(written == parameters_of_help(), f"only in one: {sorted(written ^ parameters_of_help())}")


def has_word(text, name):
    return re.search(rf"^\.(?:It )?Li\b.*(?<![\w-]){re.escape(name)}(?![\w-])", text, re.M)


@test
def manual_of_qmp_has_each_parameter_and_capability(place):
    names = re.findall(r"\.qmp = \"([a-z-]+)\"", read(os.path.join(REPO, "migrate/parameter_rows.h")))
    missing = [name for name in names if not has_word(pages()["godwit-qmp.7"], name)]
    check(names and not missing, f"godwit-qmp.7 lacks {missing}")


@test
def manual_has_each_decision(place):
    names = re.findall(r"\] = \"([a-z-]+)\"", read(os.path.join(REPO, "migrate/decisions.c")))
    missing = [name for name in names if not has_word(pages()["godwit-migrate.1"], name)]
    check(names and not missing, f"godwit-migrate.1 lacks {missing}")
