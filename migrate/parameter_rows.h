/*
 * The table of the migration's parameters and capabilities, one row each. parameters.h takes the
 * members of struct migration_parameters from it, parameters.c the rows, so this file is included
 * twice and has no guard. To add a parameter, add a row here and use the member.
 *
 * PARAMETER_NUMBER(member, ...)  a uint64_t of that name
 * PARAMETER_SWITCH(member, ...)  a capability that users choose: a bool of that name
 * PARAMETER_OTHER(member, ...)   a member that parameters.h declares itself
 * PARAMETER_FIXED(...)           a capability that is always on, or that is not implemented
 *
 * The rest of a row are members of struct parameter (parameters.h). The order is that of lists and
 * help texts; among capabilities it is QEMU's.
 */
#ifndef PARAMETER_NUMBER
#define PARAMETER_NUMBER(member, ...)
#define PARAMETER_SWITCH(member, ...)
#define PARAMETER_OTHER(member, ...)
#define PARAMETER_FIXED(...)
#endif

PARAMETER_NUMBER(bandwidth, .qmp = "max-bandwidth", .name = "bandwidth", .kind = PARAMETER_RATE,
		 .max = INT64_MAX, .option = true, .live = true, .argument = "RATE",
		 .unit = "bytes a second, 0: no limit",
		 .help = "the most to send, in bytes a second; RATE takes K, M, G, T. 0: no limit. "
			 "It also holds during the pause")

PARAMETER_NUMBER(downtime_ms, .qmp = "downtime-limit", .name = "downtime", .kind = PARAMETER_MS,
		 .max = 2000000, .preset = 300, .option = true, .live = true, .argument = "MS",
		 .unit = "ms",
		 .help = "the longest that the guest may stand still, in ms. It overrules the "
			 "first limit of a policy that is set together with it or was set before")

PARAMETER_OTHER(policy, .qmp = "x-godwit-policy", .name = "policy", .kind = PARAMETER_POLICY,
		.option = true, .argument = "NAME|FILE[#NAME]",
		.unit = "name or FILE[#NAME], empty: none",
		.help = "what may be used, and what happens if there is no progress: "
			"minimal-downtime, suspend-workload-if-needed, or a file in the form of "
			"oVirt's MigrationPolicies (NAME picks one of several). downtime and "
			"compress overrule what it says. The policy post-copy is not implemented")

PARAMETER_OTHER(timeout.total_s, .qmp = "x-godwit-timeout", .name = "timeout",
		.kind = PARAMETER_TIMEOUT, .max = PARAMETER_YEAR_S, .option = true, .live = true,
		.argument = "SEC|N/GiB", .unit = "s, or s/GiB; 0: none",
		.help = "how many seconds the migration may take, from its start until the guest "
			"is handed over. N/GiB: N seconds for each GiB of the guest's RAM. "
			"0: for ever. Time that it waits for its turn counts")

PARAMETER_OTHER(timeout.per_gib_s, .qmp = "x-godwit-timeout-per-gib", .name = "timeout-per-gib",
		.kind = PARAMETER_PLAIN, .max = PARAMETER_YEAR_S, .live = true, .argument = "SEC",
		.unit = "s for each GiB of RAM, 0: none", .help = "the same as timeout=N/GiB")

PARAMETER_OTHER(
	timeout.progress_s, .qmp = "x-godwit-progress-timeout", .name = "progress-timeout",
	.kind = PARAMETER_PLAIN, .max = PARAMETER_YEAR_S, .option = true, .live = true,
	.argument = "SEC", .unit = "s without progress, 0: none",
	.help = "how long the migration may go on without progress, in seconds; 0: for ever")

PARAMETER_NUMBER(switchover_ms, .qmp = "x-godwit-switchover-timeout", .name = "switchover-timeout",
		 .kind = PARAMETER_MS, .max = HANDOVER_CHOSEN_MAX_MS, .option = true, .live = true,
		 .argument = "MS", .unit = "ms, 0: it follows from the downtime",
		 .help = "how long the guest may stand still before it is handed over. After that "
			 "the migration fails, and the guest goes on here. 0: ten times the "
			 "downtime and 2 s, and with the action force as long as data are sent")

PARAMETER_NUMBER(
	answer_timeout_s, .qmp = "x-godwit-answer-timeout", .name = "answer-timeout",
	.kind = PARAMETER_PLAIN, .max = 86400, .option = true, .argument = "SEC",
	.unit = "s, 0: 60 for the machine, 120 for a round",
	.help = "how many seconds the destination may take to build the machine, or to take "
		"in the rest of a round. After that the migration fails. 0: 60 for the "
		"machine and 120 for a round")

PARAMETER_OTHER(timeout_action, .qmp = "x-godwit-timeout-action", .name = "timeout-action",
		.kind = PARAMETER_ACTION, .preset_text = "abort", .option = true, .live = true,
		.argument = "abort|force|post-copy", .unit = "abort or force",
		.help = "what happens after a timeout. abort: give up. force: park the guest at "
			"once and finish, however long the pause is; before the first page was "
			"sent, give up. post-copy is not implemented")

PARAMETER_SWITCH(xbzrle, .qmp = "xbzrle")

PARAMETER_SWITCH(auto_converge, .qmp = "auto-converge", .name = "auto-converge", .option = true,
		 .unit = "on or off",
		 .help = "slow the guest if it writes faster than the link carries, as much as is "
			 "needed and no more")

PARAMETER_FIXED(.qmp = "postcopy-ram", .kind = PARAMETER_NOT_IMPLEMENTED)

PARAMETER_SWITCH(multifd, .qmp = "multifd")

PARAMETER_FIXED(.qmp = "events", .kind = PARAMETER_ALWAYS_ON)

PARAMETER_FIXED(.qmp = "pause-before-switchover", .kind = PARAMETER_NOT_IMPLEMENTED)

PARAMETER_SWITCH(
	dirty_limit, .qmp = "dirty-limit", .name = "dirty-limit", .unit = "on or off",
	.help = "instead of auto-converge: limit how much each vCPU may dirty, so that vCPUs that "
		"write little are not slowed. It needs a VM that was started with --dirty-ring")

PARAMETER_FIXED(.qmp = "return-path", .kind = PARAMETER_ALWAYS_ON)

PARAMETER_NUMBER(vcpu_dirty_limit, .qmp = "vcpu-dirty-limit", .name = "vcpu-dirty-limit",
		 .kind = PARAMETER_PLAIN, .min = 1, .max = 1 << 20, .preset = 1, .argument = "N",
		 .unit = "MiB a second that each vCPU may dirty in any case",
		 .help = "with dirty-limit, what each vCPU may dirty in any case, in MiB a second")

PARAMETER_NUMBER(throttle_max, .qmp = "max-cpu-throttle", .name = "max-cpu-throttle",
		 .kind = PARAMETER_PLAIN, .max = 99, .argument = "N",
		 .unit = "% of the vCPUs' time at most, 0: what is needed",
		 .help = "the most that auto-converge takes of the vCPUs' time, in percent; 0: "
			 "what is needed")

PARAMETER_NUMBER(throttle_initial, .qmp = "cpu-throttle-initial", .name = "cpu-throttle-initial",
		 .kind = PARAMETER_PLAIN, .max = 99, .argument = "N",
		 .unit = "% to begin with, 0: what is needed",
		 .help = "what auto-converge begins with, in percent; 0: what is needed")

PARAMETER_NUMBER(
	throttle_increment, .qmp = "cpu-throttle-increment", .name = "cpu-throttle-increment",
	.kind = PARAMETER_PLAIN, .max = 99, .argument = "N",
	.unit = "% more at a time at most, 0: what is needed",
	.help = "the most that auto-converge adds at a time, in percent; 0: what is needed")

PARAMETER_OTHER(compression, .qmp = "multifd-compression", .name = "compress",
		.kind = PARAMETER_COMPRESSION, .preset_text = "none", .option = true,
		.argument = "none|xbzrle|zlib|zstd", .unit = "none, xbzrle, zlib or zstd",
		.help = "how pages are made smaller, when that saves time. xbzrle: of a page that "
			"was sent before, send only what changed in it")

PARAMETER_NUMBER(xbzrle_cache_bytes, .qmp = "xbzrle-cache-size", .name = "xbzrle-cache-size",
		 .kind = PARAMETER_SIZE, .min = PAGE_CACHE_BYTES_MIN, .max = INT64_MAX,
		 .preset = 64 << 20, .argument = "SIZE", .unit = "bytes",
		 .help = "memory for xbzrle, from 1M to the host's memory")

PARAMETER_NUMBER(zlib_level, .qmp = "multifd-zlib-level", .name = "zlib-level",
		 .kind = PARAMETER_PLAIN, .min = 1, .max = 9, .preset = 1, .argument = "N",
		 .unit = "1 to 9",
		 .help = "how hard zlib tries: a higher level is slower and sends less")

PARAMETER_NUMBER(zstd_level, .qmp = "multifd-zstd-level", .name = "zstd-level",
		 .kind = PARAMETER_PLAIN, .min = 1, .max = 20, .preset = 1, .argument = "N",
		 .unit = "1 to 20", .help = "the same for zstd")

PARAMETER_NUMBER(announce_rounds, .qmp = "announce-rounds", .name = "announce-rounds",
		 .kind = PARAMETER_PLAIN, .max = 1000, .preset = 5, .argument = "N",
		 .unit = "times",
		 .help = "of a VM that waits for a guest: how many times switches and guest are "
			 "told of its new place; 0: never")

PARAMETER_NUMBER(announce_initial, .qmp = "announce-initial", .name = "announce-initial",
		 .kind = PARAMETER_PLAIN, .max = 100000, .preset = 50, .argument = "MS",
		 .unit = "ms", .help = "the wait after the first time, in ms")

PARAMETER_NUMBER(announce_step, .qmp = "announce-step", .name = "announce-step",
		 .kind = PARAMETER_PLAIN, .min = 1, .max = 10000, .preset = 100, .argument = "MS",
		 .unit = "ms", .help = "by how many ms each wait is longer than the last")

PARAMETER_NUMBER(announce_max, .qmp = "announce-max", .name = "announce-max",
		 .kind = PARAMETER_PLAIN, .max = 100000, .preset = 550, .argument = "MS",
		 .unit = "ms", .help = "the longest wait, in ms")

PARAMETER_NUMBER(channels, .qmp = "multifd-channels", .name = "channels",
		 .kind = PARAMETER_CHANNELS, .min = 1, .max = 16, .preset = 2, .option = true,
		 .argument = "N", .unit = "connections", .help = "parallel connections")

PARAMETER_OTHER(bind, .qmp = "x-godwit-bind", .name = "bind", .kind = PARAMETER_TEXT,
		.max = PARAMETER_BIND_BYTES - 1, .option = true, .argument = "ADDR",
		.unit = "local address, empty: any",
		.help = "the local address to connect from; empty: any")

#undef PARAMETER_NUMBER
#undef PARAMETER_SWITCH
#undef PARAMETER_OTHER
#undef PARAMETER_FIXED
