/*
 * The help texts of all verbs, at most 80 columns wide. They are part of the contract with users:
 * an option and its text change in one commit. Texts of parameters come from their table.
 */
#include "vmm/cli/help.h"

#include <stddef.h>

const char help_overview[] =
	"usage: godwit VERB [OPTION...] [WORD...]\n"
	"\n"
	"Virtual machines:\n"
	"  run --kernel FILE ...   start a VM and stay until it ends\n"
	"  restore FILE            continue a VM that was saved\n"
	"  save VM FILE            save a VM to a file and end it\n"
	"  list                    the VMs that run on this host\n"
	"  status VM               one of them\n"
	"  pause VM                pause the guest\n"
	"  resume VM               let a paused guest run\n"
	"  reset VM                start the guest again from its kernel\n"
	"  resize VM ID [SIZE]     let a disk grow, and tell the guest\n"
	"  shutdown VM             press the power button and wait for the guest to power\n"
	"                          off\n"
	"  quit VM                 end the VM at once, as if its power were cut\n"
	"\n"
	"Moving:\n"
	"  receive --listen URI    wait for a VM from another host, and run it\n"
	"  migrate VM URI          move a VM there while its guest runs\n"
	"  cancel VM               cancel its migration; the guest runs on here\n"
	"  set VM PARAM=VALUE...   change a migration's parameters, also while it runs\n"
	"\n"
	"Looking:\n"
	"  inspect FILE            what a saved VM holds\n"
	"  doctor                  what this host can do\n"
	"\n"
	"VM is a name, or the path of a control socket (anything with a '/').\n"
	"godwit VERB --help prints the options of a verb, godwit --version the version.\n"
	"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cancelled, 4 undecided (migrate).\n"
	"Errors are one sentence on stderr. If output cannot be written, the exit code is\n"
	"1; that of migrate and save stays, as it says where the guest is.\n";

/* Of what comes from elsewhere. */
#define COMING_OPTIONS                                                                       \
	"  --disk ID=PATH[,copy]\n"                                                          \
	"                      the path here of the disk called ID; may be repeated.\n"      \
	"                      copy: you have copied it while the guest could not write\n"   \
	"  --net ID=tap:IF     the tap interface here of the card called ID; may be\n"       \
	"                      repeated\n"                                                   \
	"  --channel NAME,socket=PATH\n"                                                     \
	"                      the socket here of the channel called NAME; may be\n"         \
	"                      repeated\n"                                                   \
	"  --kernel FILE       the kernel for the guest's next reboot\n"                     \
	"  --initrd FILE       its initial RAM disk\n"                                       \
	"  --allow-path DIR    use images, kernel, initrd and sockets as they are\n"         \
	"                      suggested if they lie below DIR once all links are\n"         \
	"                      resolved; may be repeated\n"                                  \
	"  --same-paths        use all of them as they are suggested: this host is set up\n" \
	"                      like the other\n"                                             \
	"  --memory-max SIZE   refuse a machine with more memory (default: what this host\n" \
	"                      has, for a machine that comes over a connection)\n"

/* Of every VM on this host. */
#define HOST_OPTIONS                                                                         \
	"  --console stdio|null|file:PATH|unix:PATH\n"                                       \
	"                      where the guest's serial port goes. stdio is a raw pipe,\n"   \
	"                      or raw mode on a terminal: Ctrl-A x quits, Ctrl-A h helps.\n" \
	"                      A client of a unix console gets the last lines that it\n"     \
	"                      missed\n"                                                     \
	"  --control PATH      the control socket (default: NAME.sock in the runtime\n"      \
	"                      directory: $GODWIT_RUNTIME_DIR, /run/godwit for root, or\n"   \
	"                      $XDG_RUNTIME_DIR/godwit)\n"                                   \
	"  --dirty-ring N      let KVM track written pages in rings of N entries, one for\n" \
	"                      each vCPU: a power of two from 1024 to 65536. The\n"          \
	"                      capability dirty-limit needs it; writing costs the guest\n"   \
	"                      more. 0: a bitmap (the default)\n"                            \
	"  --paused            do not start the guest before godwit resume (a guest that\n"  \
	"                      was paused when it was saved or moved is paused in any\n"     \
	"                      case)\n"                                                      \
	"  --user NAME         become this user once everything is open; without it a VM\n"  \
	"                      that root starts stays root, but without capabilities\n"      \
	"  --verbose           print decisions and events on stderr\n"                       \
	"  --help              this text\n"

const struct help help_texts[] = {
	{ "run",
	  "usage: godwit run --kernel FILE [OPTION...]\n"
	  "\n"
	  "Starts a VM and stays until it ends: 0 when its guest has powered off.\n"
	  "\n"
	  "  --kernel FILE       a bzImage, or an ELF kernel with a PVH note\n"
	  "  --initrd FILE       an initial RAM disk\n"
	  "  --cmdline TEXT      the whole kernel command line (default: console=ttyS0\n"
	  "                      panic=-1)\n"
	  "  --name NAME         the name of the VM: letters, digits, '.', '_', '-'\n"
	  "                      (default: vm- and the process id)\n"
	  "  --cpus N            1 to 254 (default: 1)\n"
	  "  --memory SIZE       RAM; SIZE is a number with K, M, G or T (default: 256M).\n"
	  "                      512M, 512m, 512MB and 512MiB are the same: all units are\n"
	  "                      powers of 1024\n"
	  "  --disk PATH[,readonly][,serial=S][,on-error=ACTION][,id=ID]\n"
	  "                      a raw image file or a block device; may be repeated; a\n"
	  "                      comma in PATH is written twice (default ids: disk0, disk1,\n"
	  "                      ...). ACTION says what happens if a write fails on this\n"
	  "                      host. enospc (the default): if there is no room, the guest\n"
	  "                      stops until godwit resume, which tries again; other errors\n"
	  "                      are reported to the guest. stop: the guest stops after any\n"
	  "                      error. report: all are reported. Errors of reads and\n"
	  "                      flushes are always reported\n"
	  "  --net tap=IF[,mac=MAC][,id=ID]\n"
	  "                      a network card on a tap interface; may be repeated\n"
	  "                      (default ids: net0, net1, ...; default MAC: made from the\n"
	  "                      VM's name and the id)\n"
	  "  --channel NAME,socket=PATH\n"
	  "                      a named port in the guest (/dev/virtio-ports/NAME) that\n"
	  "                      reaches a unix socket here; may be repeated.\n"
	  "                      org.qemu.guest_agent.0 is the port of qemu-guest-agent:\n"
	  "                      while no client uses the socket, policies tell the guest\n"
	  "                      through it that it is moved\n" HOST_OPTIONS },
	{ "restore",
	  "usage: godwit restore FILE [OPTION...]\n"
	  "\n"
	  "Continues the VM that FILE holds. What the guest sees comes from the file. The\n"
	  "host's side (disks, taps, sockets, console, kernel) is as it was, or as these\n"
	  "options say. If others may have written FILE (it belongs neither to you nor to\n"
	  "root, or others can write it), what it says of the host's side is only a\n"
	  "suggestion: see godwit receive --help.\n"
	  "\n"
	  "  --name NAME         give the VM another name\n" COMING_OPTIONS HOST_OPTIONS },
	{ "save",
	  "usage: godwit save VM FILE\n"
	  "\n"
	  "Saves the VM: its guest stops, FILE holds all of it, and the VM ends. FILE\n"
	  "appears only when it is complete. If that fails, an older FILE stays as it was\n"
	  "and the guest runs on. Only an older saved VM is replaced. Ctrl-C cancels (exit\n"
	  "code 3). godwit restore FILE continues the VM.\n" },
	{ "receive",
	  "usage: godwit receive --listen URI [OPTION...]\n"
	  "\n"
	  "Waits for a VM that godwit migrate moves here, and runs it until it ends. What\n"
	  "the guest sees comes with it. The host's side (disks, taps, sockets, console,\n"
	  "kernel) is what these options say. What it was on the other host is a\n"
	  "suggestion, which is used only if --allow-path or --same-paths says so. Without\n"
	  "it, a disk, tap or channel that no option names is refused, the console is\n"
	  "stdio, and without --kernel the guest cannot reboot.\n"
	  "A caller that is no migration, a guest that is refused and a guest that does not\n"
	  "arrive are reported on stderr, at most one line a minute, and it goes on\n"
	  "waiting. Once a guest has arrived, no other can. As root it waits in a separate\n"
	  "process for each guest, since rights that were given up do not come back.\n"
	  "While it waits, its status is inmigrate, and godwit quit ends it. Without --name\n"
	  "it is called vm- and the process id until the guest brings a name.\n"
	  "\n"
	  "  --listen URI        tcp:HOST:PORT (no HOST: all addresses; port 0: any free\n"
	  "                      one, which is printed) or unix:PATH. IPv6 addresses in\n"
	  "                      brackets\n"
	  "  --once              exit with 1 when a guest is refused or does not arrive,\n"
	  "                      instead of waiting for the next one\n"
	  "  --silence SEC       give up a migration whose source sends nothing for SEC\n"
	  "                      seconds (default: 60; at most 20 while another source\n"
	  "                      waits)\n"
	  "  --name NAME         give the VM another name\n" COMING_OPTIONS HOST_OPTIONS },
	{ "migrate",
	  "usage: godwit migrate VM URI [OPTION...]\n"
	  "\n"
	  "Moves a VM to where godwit receive --listen URI waits, while its guest runs, and\n"
	  "returns when that is over. Ctrl-C cancels: the guest runs on here. URI is\n"
	  "tcp:HOST:PORT, unix:PATH, fd:N (a connection that the VM was started with) or\n"
	  "file:PATH. On a terminal it draws one line, else it prints one for each round.\n"
	  "\n",
	  help_migrate_options,
	  "  --detach            return once it has begun; godwit status VM shows it\n"
	  "  --report FILE       write its history, with every decision, to FILE.html (one\n"
	  "                      page with a picture) or FILE.json\n"
	  "  --check             do not move it, but predict its migration: whether it\n"
	  "                      converges, how long it takes, and its pause. This takes\n"
	  "                      two or three seconds, to see how the guest writes and what\n"
	  "                      the link carries. The guest runs on, and godwit receive\n"
	  "                      goes on waiting. Only for tcp: and unix:. It does not look\n"
	  "                      at whether the machine fits there (its disks, its CPU).\n"
	  "                      0: it can be moved; 1: it cannot, or nobody answers there\n"
	  "  --json              at the end print the answer to query-migrate, with a\n"
	  "                      \"result\"; with --check that to x-godwit-query-check\n"
	  "\n"
	  "Options hold for this migration (with --detach until they are set again); for\n"
	  "all others the values of godwit set hold.\n"
	  "Exit codes: 0 moved; 1 failed, 3 cancelled: the guest is still here; 2 wrong\n"
	  "usage; 4 undecided: the destination was told to start the guest and has not\n"
	  "confirmed it. Look there first; godwit resume VM --force lets the guest run here\n"
	  "again.\n" },
	{ "cancel",
	  "usage: godwit cancel VM\n"
	  "\n"
	  "Cancels the migration of a VM that is under way; returns when it is over and the\n"
	  "guest runs on here at full speed. If it is too late (the guest has moved), that\n"
	  "is an error.\n" },
	{ "set",
	  "usage: godwit set VM [PARAM=VALUE... | --json]\n"
	  "\n"
	  "Sets parameters of a VM's migrations: all of them or, if one is refused, none.\n"
	  "Without PARAM=VALUE: lists their values.\n"
	  "\n",
	  help_set_parameters,
	  "\n"
	  "The QMP names in parentheses may be used too.\n" },
	{ "inspect",
	  "usage: godwit inspect FILE [--tree|--states|--pages]\n"
	  "\n"
	  "Prints what a saved VM holds: a summary, with the host's side of its devices, or\n"
	  "  --tree              the machine, as device tree source\n"
	  "  --states            the states of its devices and processors, as device tree\n"
	  "                      source\n"
	  "  --pages             which pages of its memory are in the file\n" },
	{ "doctor",
	  "usage: godwit doctor [--json]\n"
	  "\n"
	  "Prints what this host can do, and what is missing: KVM and each of its\n"
	  "capabilities that godwit uses, whether guest kernels run at hardware speed, tap\n"
	  "interfaces, userfaultfd, huge pages, free memory.\n"
	  "\n"
	  "  --json              for scripts\n" },
	{ "list",
	  "usage: godwit list [--json]\n"
	  "\n"
	  "Lists the VMs of the runtime directory ($GODWIT_RUNTIME_DIR, /run/godwit for\n"
	  "root, or $XDG_RUNTIME_DIR/godwit) with name, status and process id. Sockets that\n"
	  "VMs have left behind are removed.\n" },
	{ "status",
	  "usage: godwit status VM [--json]\n"
	  "\n"
	  "Prints name, status (running, paused, ...), number of CPUs, process id and\n"
	  "control socket of a VM; and how far its migration is, or how the last one ended.\n" },
	{ "pause", "usage: godwit pause VM\n"
		   "\n"
		   "Pauses the guest; returns when it is paused. A guest that is still being\n"
		   "restored or received will be paused when it is here.\n" },
	{ "resume",
	  "usage: godwit resume VM [--force]\n"
	  "\n"
	  "Lets a paused guest run; returns when it runs. A guest that is still being\n"
	  "restored or received runs as soon as it is here, also with restore --paused. A\n"
	  "guest that was stopped because a disk of this host had no room (io-error) tries\n"
	  "again what failed.\n"
	  "\n"
	  "  --force             after a migration that ended undecided (the destination\n"
	  "                      was told to start the guest and has not confirmed it): let\n"
	  "                      the guest run here. Only if you know that it does not run\n"
	  "                      there. If it was paused before, it stays paused, which is\n"
	  "                      said\n" },
	{ "reset", "usage: godwit reset VM\n"
		   "\n"
		   "Resets the machine and starts the guest again from its kernel, without asking\n"
		   "the guest; returns when that is done.\n" },
	{ "resize",
	  "usage: godwit resize VM ID [SIZE]\n"
	  "\n"
	  "Tells the guest that its disk ID (disk0, ...) is larger: as large as its image\n"
	  "is now, or SIZE, a number of bytes or one with K, M, G or T. If an image file is\n"
	  "smaller than SIZE, it is grown first; a block device is grown with its own tools\n"
	  "before. A disk never shrinks. A Linux guest sees the new size at once; its\n"
	  "partitions and file systems are grown in the guest (growpart, resize2fs, ...).\n" },
	{ "shutdown",
	  "usage: godwit shutdown VM [--timeout SECONDS]\n"
	  "\n"
	  "Presses the ACPI power button and waits until the guest has powered off and the\n"
	  "VM has ended. If the guest ignores it, that is an error after the time limit.\n"
	  "\n"
	  "  --timeout SECONDS   how long to wait (default: 60; 0: press and return)\n" },
	{ "quit", "usage: godwit quit VM\n"
		  "\n"
		  "Ends the VM at once, as if its power were cut; returns when its process has\n"
		  "ended.\n" },
	{ .verb = NULL },
};
