/*
 * The help texts of all verbs: `godwit VERB --help` and `godwit --help`. Constant text; what it
 * promises is the contract with users, so it changes in the same commit as the options do.
 */
#include "vmm/cli/verb.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "migrate/parameters.h"
#include "vmm/base/err.h"
#include "vmm/base/words.h"

struct help {
	const char *verb, *text;
	void (*more)(void); /* prints what comes from a table; may be NULL */
	const char *rest;   /* what comes after that */
};

/* The column in which the texts of options begin, and the first that is too far right. */
#define TEXT_COLUMN 22
#define WIDTH	    80

/* Words in lines of at most WIDTH columns; `column` is where the first one goes. */
static void print_words(const char *text, size_t column, size_t indent)
{
	size_t word;

	for (; *text; text += word + (text[word] == ' ')) {
		word = strcspn(text, " ");
		if (column > indent && column + 1 + word > WIDTH)
			column = (size_t)fprintf(stdout, "\n%*s", (int)indent, "") - 1;
		else if (column > indent)
			column += (size_t)fprintf(stdout, " ");
		column += (size_t)fprintf(stdout, "%.*s", (int)word, text);
	}
	fputc('\n', stdout);
}

/* An option, and its text in the column beside it. */
static void print_item(const char *name, const char *text)
{
	size_t n = (size_t)fprintf(stdout, "  %s", name);

	if (n < TEXT_COLUMN)
		fprintf(stdout, "%*s", (int)(TEXT_COLUMN - n), "");
	else
		fprintf(stdout, "\n%*s", TEXT_COLUMN, "");
	print_words(text, TEXT_COLUMN, TEXT_COLUMN);
}

/* The range and the preset of a parameter; "": it has neither. */
static void describe_values(const struct parameter *r, char *text, size_t size)
{
	/* One connection is used until `channels` says more. */
	uint64_t preset = r->kind == PARAMETER_CHANNELS ? 1 : r->preset;

	text[0] = '\0';
	if (r->kind == PARAMETER_RATE || r->kind == PARAMETER_SIZE)
		snprintf(text, size, "default: %" PRIu64 "%s", preset >> 20,
			 preset >> 20 ? "M" : "");
	else if (parameter_is_number(r))
		snprintf(text, size, "%" PRIu64 " to %" PRIu64 ", default: %" PRIu64, r->min,
			 r->max, preset);
	else if (r->preset_text)
		snprintf(text, size, "default: %s", r->preset_text);
}

/* `left` and the row's text, with what is known of its values and its QMP name in parentheses. */
static void print_parameter(const struct parameter *r, const char *left, bool with_qmp)
{
	const char *qmp = with_qmp && strcmp(r->name, r->qmp) ? r->qmp : "";
	char values[80], text[768];

	describe_values(r, values, sizeof(values));
	if (values[0] || qmp[0])
		snprintf(text, sizeof(text), "%s (%s%s%s%s)", r->help, values,
			 values[0] && qmp[0] ? "; " : "", qmp[0] ? "QMP: " : "", qmp);
	else
		snprintf(text, sizeof(text), "%s", r->help);
	print_item(left, text);
}

/* As `--name ARGUMENT`. */
static void print_migrate_options(void)
{
	char left[80];

	for (const struct parameter *r = parameter_table; r->qmp; r++) {
		if (!r->option)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", r->name, r->argument ? " " : "",
			 r->argument ? r->argument : "");
		print_parameter(r, left, false);
	}
}

/* Which parameters hold at once, as one sentence. */
static void print_live_parameters(void)
{
	char text[768] = "";
	size_t n = 0;

	for (const struct parameter *r = parameter_table; r->qmp; r++)
		if (r->name && r->live)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? ", " : "",
					      r->name);
	snprintf(text + n, sizeof(text) - n,
		 " also hold for a migration that is under way, the others for the next one.");
	print_words(text, 0, 0);
}

/* As `name=ARGUMENT`. */
static void print_set_parameters(void)
{
	char left[80];

	print_live_parameters();
	fputc('\n', stdout);
	for (const struct parameter *r = parameter_table; r->qmp; r++) {
		if (!r->name)
			continue;
		snprintf(left, sizeof(left), "%s=%s", r->name,
			 r->argument ? r->argument : "on|off");
		print_parameter(r, left, true);
	}
}

static const char overview[] =
	"usage: godwit VERB [OPTION...] [WORD...]\n"
	"\n"
	"Virtual machines:\n"
	"  run --kernel FILE ...   start a VM and stay until it ends\n"
	"  restore FILE            go on with a VM that was saved\n"
	"  save VM FILE            put a VM away into a file\n"
	"  list                    the VMs that run on this host\n"
	"  status VM               one of them\n"
	"  pause VM                stop the guest where it is\n"
	"  resume VM               let it go on\n"
	"  reset VM                start the guest again from its kernel\n"
	"  resize VM ID [SIZE]     let a disk grow, and tell the guest\n"
	"  shutdown VM             press the power button and wait for the guest to power off\n"
	"  quit VM                 end the VM at once, as if its power were cut\n"
	"\n"
	"Moving:\n"
	"  receive --listen URI    wait for a VM from another host, and run it\n"
	"  migrate VM URI          move a VM there while its guest runs\n"
	"  cancel VM               end its migration; the guest runs on here\n"
	"  set VM PARAM=VALUE...   change a migration's limits, also while it runs\n"
	"\n"
	"Looking:\n"
	"  inspect FILE            what a saved VM holds\n"
	"  doctor                  what this host can do\n"
	"\n"
	"VM is a name, or the path of a control socket (anything with a '/').\n"
	"godwit VERB --help tells the options of a verb, godwit --version the version.\n"
	"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cancelled, 4 undecided (migrate).\n"
	"Errors are one sentence on stderr. Output that cannot be written is an error (1; of\n"
	"migrate and save the code stays, as it tells where the guest is).\n";

#define COMING_OPTIONS                                                                            \
	"  --disk ID=PATH[,copy]\n"                                                               \
	"                      where the disk called ID is here; may be repeated. copy: you\n"    \
	"                      have copied it, while the guest could not write\n"                 \
	"  --net ID=tap:IF     the tap interface of the card called ID; may be repeated\n"        \
	"  --channel NAME,socket=PATH\n"                                                          \
	"                      the socket of the channel called NAME; may be repeated\n"          \
	"  --kernel FILE       the kernel for the guest's next reboot\n"                          \
	"  --initrd FILE       its initial RAM disk\n"                                            \
	"  --allow-path DIR    images, kernel, initrd and sockets that lie below DIR, once all\n" \
	"                      links are resolved, are used as they are suggested; may be\n"      \
	"                      repeated\n"                                                        \
	"  --same-paths        all of it is used as it is suggested: this host is like the "      \
	"other\n"                                                                                 \
	"  --memory-max SIZE   refuse a machine with more memory (default: of one that comes "    \
	"over\n"                                                                                  \
	"                      a connection, what this host has)\n"

#define HOST_OPTIONS                                                                               \
	"  --console stdio|null|file:PATH|unix:PATH\n"                                             \
	"                      where the guest's serial port goes. stdio is a raw pipe, or on a\n" \
	"                      terminal raw mode: Ctrl-A x quits, Ctrl-A h helps. A client of\n"   \
	"                      a unix console gets the last lines that it missed\n"                \
	"  --control PATH      the control socket (default: NAME.sock in the runtime directory:\n" \
	"                      $GODWIT_RUNTIME_DIR, /run/godwit for root, or\n"                    \
	"                      $XDG_RUNTIME_DIR/godwit)\n"                                         \
	"  --dirty-ring N      let KVM track written pages in rings of N entries, one a vCPU: a\n" \
	"                      power of two from 1024 to 65536. Needed for the capability\n"       \
	"                      dirty-limit; costs writers more. 0: a bitmap (the default)\n"       \
	"  --paused            do not start the guest before godwit resume (a guest that was\n"    \
	"                      paused when it was saved or moved is paused in any case)\n"         \
	"  --user NAME         drop to this user once everything is open; without it a VM that\n"  \
	"                      root starts stays root, though without capabilities\n"              \
	"  --verbose           tell decisions and events on stderr\n"                              \
	"  --help              this text\n"

static const struct help helps[] = {
	{ "run",
	  "usage: godwit run --kernel FILE [OPTION...]\n"
	  "\n"
	  "Starts a VM and stays until it ends: 0 when its guest has powered off.\n"
	  "\n"
	  "  --kernel FILE       a bzImage, or an ELF kernel with a PVH note\n"
	  "  --initrd FILE       an initial RAM disk\n"
	  "  --cmdline TEXT      the whole kernel command line (default: console=ttyS0 panic=-1)\n"
	  "  --name NAME         what the VM is called: letters, digits, '.', '_', '-'\n"
	  "                      (default: vm- and the process id)\n"
	  "  --cpus N            1 to 254 (default: 1)\n"
	  "  --memory SIZE       RAM; SIZE is a number with K, M, G or T (default: 256M). 512M,\n"
	  "                      512m, 512MB and 512MiB are the same: all units are of 1024\n"
	  "  --disk PATH[,readonly][,serial=S][,on-error=ACTION][,id=ID]\n"
	  "                      a raw image file or a block device; may be repeated; a comma in\n"
	  "                      PATH is written twice (ids by default: disk0, disk1, ...).\n"
	  "                      What becomes of a write that this host cannot do is ACTION's:\n"
	  "                      enospc (the default) stops the guest when there is no room, "
	  "until\n"
	  "                      godwit resume, which tries again, and reports other errors to\n"
	  "                      it; stop stops it for all; report stops it for none. Errors of\n"
	  "                      reads and of flushes are reported\n"
	  "  --net tap=IF[,mac=MAC][,id=ID]\n"
	  "                      a network card on a tap interface; may be repeated (ids by\n"
	  "                      default: net0, ...; MAC: made from the VM's name and the id)\n"
	  "  --channel NAME,socket=PATH\n"
	  "                      a named port in the guest (/dev/virtio-ports/NAME) that reaches\n"
	  "                      a unix socket here; may be repeated. org.qemu.guest_agent.0 is\n"
	  "                      that of qemu-guest-agent: policies tell the guest by it that it\n"
	  "                      is moved, while no client is connected to the "
	  "socket\n" HOST_OPTIONS },
	{ "restore",
	  "usage: godwit restore FILE [OPTION...]\n"
	  "\n"
	  "Goes on with the VM that FILE holds. What the guest sees comes from the file; the\n"
	  "host's side (disks, taps, sockets, console, kernel) is as it was, or as these options\n"
	  "say. If FILE is not yours alone (it belongs to you or root, and nobody else can write\n"
	  "it), what it says of the host's side is a suggestion: see godwit receive --help.\n"
	  "\n"
	  "  --name NAME         call the VM otherwise\n" COMING_OPTIONS HOST_OPTIONS },
	{ "save", "usage: godwit save VM FILE\n"
		  "\n"
		  "Puts the VM away: its guest stops, FILE holds all of it, the VM ends. FILE "
		  "appears only\n"
		  "when it is complete; whatever fails before leaves an older FILE as it was and "
		  "the guest\n"
		  "running. Nothing but an older saved VM is replaced. Ctrl-C cancels (exit code "
		  "3).\n"
		  "godwit restore FILE goes on with it.\n" },
	{ "receive",
	  "usage: godwit receive --listen URI [OPTION...]\n"
	  "\n"
	  "Waits for a VM that godwit migrate moves here, and runs it until it ends. What the\n"
	  "guest sees comes with it. The host's side (disks, taps, sockets, console, kernel) is\n"
	  "what these options say: where it was on the other host is a suggestion, which is used\n"
	  "only if --allow-path or --same-paths says so. A disk, tap or channel that is not said\n"
	  "is refused; the console is stdio then, and without a kernel the guest cannot reboot.\n"
	  "A caller that is no migration, a guest that is refused and one that does not arrive "
	  "are\n"
	  "told on stderr, a line a minute at most, and it waits on. Once a guest has come nobody\n"
	  "else can. As root it waits in a process of its own for each, since rights that were\n"
	  "given up do not come back.\n"
	  "While it waits its status is inmigrate, and godwit quit ends it. Without --name it is\n"
	  "called vm- and the process id until the guest brings a name.\n"
	  "\n"
	  "  --listen URI        tcp:HOST:PORT (HOST may be empty: all addresses; port 0: any, "
	  "and\n"
	  "                      it is told which) or unix:PATH. IPv6 addresses in brackets\n"
	  "  --once              end with 1 when a guest is refused or does not arrive, instead "
	  "of\n"
	  "                      waiting for the next one\n"
	  "  --silence SEC       give a migration up when its source sends nothing for so long\n"
	  "                      (default: 60; 20 at most while another source waits)\n"
	  "  --name NAME         call the VM otherwise\n" COMING_OPTIONS HOST_OPTIONS },
	{ "migrate",
	  "usage: godwit migrate VM URI [OPTION...]\n"
	  "\n"
	  "Moves a VM to where godwit receive --listen URI waits, while its guest runs, and stays\n"
	  "until that is over. Ctrl-C cancels: the guest runs on here. URI is tcp:HOST:PORT,\n"
	  "unix:PATH, fd:N (a connection that the VM was started with) or file:PATH. On a terminal "
	  "it draws one line,\n"
	  "else it prints one for each round.\n"
	  "\n",
	  print_migrate_options,
	  "  --detach            return once it has begun; godwit status VM shows it\n"
	  "  --report FILE       its history, with every decision: FILE.html (one page with a\n"
	  "                      picture) or FILE.json\n"
	  "  --check             move nothing, but say what would become of it: whether it "
	  "converges,\n"
	  "                      how long it takes, and its pause, from a sample of two or three\n"
	  "                      seconds of how the guest writes and what the link takes. The "
	  "guest\n"
	  "                      runs on, and godwit receive goes on waiting; only tcp: and "
	  "unix:.\n"
	  "                      Whether the machine would fit there (its disks, its CPU) is not\n"
	  "                      looked at. 0: it can be moved; 1: not, or nobody answers there\n"
	  "  --json              at the end the answer to query-migrate, with a \"result\"; with\n"
	  "                      --check that to x-godwit-query-check\n"
	  "\n"
	  "Options hold for this migration (with --detach until they are set anew); what is not\n"
	  "given is as godwit set has said.\n"
	  "Exit codes: 0 moved; 1 failed, 3 cancelled: the guest is still here; 2 wrong usage;\n"
	  "4 undecided: the destination was told to go on and has not said that it does. Look "
	  "there\n"
	  "first; godwit resume VM --force lets the guest run here again.\n" },
	{ "cancel", "usage: godwit cancel VM\n"
		    "\n"
		    "Ends the migration of a VM that is under way; returns when it is over and the "
		    "guest runs\n"
		    "on here at full speed. Too late (the guest has moved) is a failure.\n" },
	{ "set",
	  "usage: godwit set VM [PARAM=VALUE... | --json]\n"
	  "\n"
	  "Sets parameters of a VM's migrations: all of them or, if one is refused, none.\n"
	  "Without PARAM=VALUE: lists them as they are.\n"
	  "\n",
	  print_set_parameters,
	  "\n"
	  "The QMP names in parentheses may be used too.\n" },
	{ "inspect",
	  "usage: godwit inspect FILE [--tree|--states|--pages]\n"
	  "\n"
	  "Tells what a saved VM holds: a summary, with the host's side of its devices, or\n"
	  "  --tree              the machine, as device tree source\n"
	  "  --states            the states of its devices and processors, as device tree source\n"
	  "  --pages             which pages of its memory are in the file\n" },
	{ "doctor",
	  "usage: godwit doctor [--json]\n"
	  "\n"
	  "Tells what this host can do, and what is missing: KVM and each of its capabilities "
	  "that\n"
	  "godwit uses, whether guest kernels run at hardware speed, tap interfaces, userfaultfd,\n"
	  "huge pages, free memory.\n"
	  "\n"
	  "  --json              for scripts\n" },
	{ "list",
	  "usage: godwit list [--json]\n"
	  "\n"
	  "Lists the VMs of the runtime directory ($GODWIT_RUNTIME_DIR, /run/godwit for root, or\n"
	  "$XDG_RUNTIME_DIR/godwit) with name, status and process id. Sockets that VMs have left\n"
	  "behind are removed.\n" },
	{ "status",
	  "usage: godwit status VM [--json]\n"
	  "\n"
	  "Tells name, status (running, paused, ...), number of CPUs, process id and control\n"
	  "socket of a VM; and how far its migration is, or how the last one ended.\n" },
	{ "pause", "usage: godwit pause VM\n"
		   "\n"
		   "Stops the guest where it is; returns when it stands. One that is still being\n"
		   "restored or received will be paused when it is here.\n" },
	{ "resume",
	  "usage: godwit resume VM [--force]\n"
	  "\n"
	  "Lets a paused guest go on; returns when it runs. One that is still being restored or\n"
	  "received runs as soon as it is here, also with restore --paused. One that\n"
	  "was stopped because a disk of this host had no room (io-error) tries again what\n"
	  "failed.\n"
	  "\n"
	  "  --force             when a migration ended undecided (the destination was told to go\n"
	  "                      on and has not said that it does): let the guest run here. Only\n"
	  "                      when you know that it does not run there. One that was paused\n"
	  "                      before stays paused, and that is said.\n" },
	{ "reset",
	  "usage: godwit reset VM\n"
	  "\n"
	  "Sets the machine back and starts the guest again from its kernel, without asking the\n"
	  "guest; returns when that is done.\n" },
	{ "resize",
	  "usage: godwit resize VM ID [SIZE]\n"
	  "\n"
	  "Tells the guest that its disk ID (disk0, ...) is larger: as large as its image is now,\n"
	  "or SIZE, a number of bytes or one with K, M, G or T. An image file that is smaller "
	  "than\n"
	  "SIZE is grown first; a block device is grown with its own tools before. A disk never\n"
	  "shrinks. A Linux guest sees the new size at once; partitions and file systems are "
	  "grown\n"
	  "in the guest (growpart, resize2fs, ...).\n" },
	{ "shutdown",
	  "usage: godwit shutdown VM [--timeout SECONDS]\n"
	  "\n"
	  "Presses the ACPI power button and waits until the guest has powered off and the VM has\n"
	  "ended. A guest may take no notice: after the time limit that is an error.\n"
	  "\n"
	  "  --timeout SECONDS   how long to wait (default: 60; 0: press and return)\n" },
	{ "quit",
	  "usage: godwit quit VM\n"
	  "\n"
	  "Ends the VM at once, as if its power were cut; returns when its process is gone.\n" },
};

#define N_HELPS (sizeof(helps) / sizeof(helps[0]))

int help_print(const char *verb)
{
	const char *names[N_HELPS + 1];
	const char *nearest;
	struct err e;

	if (!verb) {
		fputs(overview, stdout);
		return VERB_DONE;
	}
	for (size_t i = 0; i < N_HELPS; i++) {
		names[i] = helps[i].verb;
		if (!strcmp(helps[i].verb, verb)) {
			fputs(helps[i].text, stdout);
			if (helps[i].more)
				helps[i].more();
			if (helps[i].rest)
				fputs(helps[i].rest, stdout);
			return VERB_DONE;
		}
	}
	names[N_HELPS] = NULL;
	nearest = word_nearest(verb, names);
	if (nearest)
		err_set(&e, "unknown verb '%s' (did you mean %s?)", verb, nearest);
	else
		err_set(&e, "unknown verb '%s' (godwit --help lists them)", verb);
	return verb_fail(&e, VERB_USAGE);
}
