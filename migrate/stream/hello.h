/*
 * How a stream begins, both directions side by side: HELLO, with which a connection says what it
 * is; MACHINE, which follows on the main one; and CHECKED, the destination's answer to the two.
 */
#ifndef GODWIT_MIGRATE_STREAM_HELLO_H
#define GODWIT_MIGRATE_STREAM_HELLO_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/stream/record.h"
#include "vmm/tree.h"

/* -- HELLO -- */

#define HELLO_BYTES    80u
#define HELLO_V1_BYTES 64u /* of version 1, without the words of features */

/* Connections of one migration, at most. */
#define LANES_MAX 16

enum hello_role {
	ROLE_MAIN = 1,	/* the connection that everything begins with */
	ROLE_PAGES = 2, /* a further one of the same migration: PAGES and ROUND only */
	ROLE_PROBE = 3, /* measures the link, and no migration: PROBE and ROUND only */
	/* Reserved: these are refused as not implemented. */
	ROLE_FAULTS = 4,  /* post-copy: pages that the destination waits for */
	ROLE_DISK = 5,	  /* data of disks */
	ROLE_RECOVER = 6, /* goes on with a migration whose connections were lost */
};

struct hello {
	uint32_t version;
	char arch[12]; /* "x86_64" */
	uint32_t role; /* enum hello_role */
	uint32_t page_bytes;
	uint8_t id[16];	  /* random: which migration */
	char program[12]; /* version of the program, for messages */
	uint32_t lanes;	  /* connections of this migration, the main one included */
	/* enum feature, of the main connection or of a file. CHECKED answers which are accepted. */
	uint64_t wanted; /* used if the destination knows them too */
	uint64_t needed; /* without them this stream cannot be read */
};

/* What a stream may have or not. Bits of a word; never reused. Those below the line are reserved:
 * a stream that needs them is refused by their name. */
enum feature {
	FEATURE_COSTS = 1u << 0, /* CHECKED brings what the pause costs at the destination */
	FEATURE_CHECKSUMS =
		1u << 1, /* pages on connections have checksums, as they have in files */
	/* -- */
	FEATURE_POSTCOPY = 1u << 2,
	FEATURE_DISKS = 1u << 3,
	FEATURE_RECOVERY = 1u << 4,
};

#define FEATURES_IMPLEMENTED ((uint64_t)(FEATURE_COSTS | FEATURE_CHECKSUMS))

/* "post-copy", ...; NULL: this program does not know it. */
const char *feature_name(unsigned int bit);

void hello_encode(const struct hello *h, uint8_t out[HELLO_BYTES]);
/* Refuses what is no godwit stream, a newer version, a role that is not implemented, another page
 * size, and a stream that needs a feature that is not implemented. */
int hello_decode(const struct record *r, struct hello *out, struct err *e);

/* Whether a stream begins like this. */
bool hello_begins_stream(const uint8_t first[RECORD_HEAD_BYTES + HELLO_V1_BYTES]);

/* Sends it. What it says of this host and this program is filled in, except a program that is
 * there. */
int hello_send(struct writer *w, struct hello *h, struct err *e);
/* Takes it from a channel, as every connection and file begins with it. Refuses another
 * architecture, too. */
int hello_take(struct reader *r, struct hello *out, struct err *e);

/* What follows HELLO at the beginning of a migration or file: MACHINE. On 0 `machine` is the
 * caller's, to be freed. */
int hello_take_machine(struct reader *r, const struct hello *h, struct tree *machine,
		       struct err *e);

/* -- CHECKED -- */

/*
 * The destination's answer: a text is a refusal. Else it is u32 0 (no text begins so), the costs
 * (u32 each, zeros unless FEATURE_COSTS is accepted), u64 features accepted. An empty body accepts
 * none. A source of version 1 gets no features, and the costs only if it hears them.
 */
#define CHECKED_BYTES	 24u
#define CHECKED_V1_BYTES 16u

/* All in us: what the machine took to be made, what its states take to be loaded and its vCPUs to
 * be started. */
struct checked_costs {
	uint32_t build_us, load_us, start_us;
};

struct checked {
	uint64_t features;	    /* accepted */
	struct checked_costs costs; /* with FEATURE_COSTS */
};

/* For a source of that version; returns the length of the body. */
size_t checked_encode(const struct checked *c, uint32_t version, uint8_t out[CHECKED_BYTES]);
/* False: it is a refusal, with a text. */
bool checked_decode(const struct record *r, struct checked *out);
/* Whether what was accepted fits what `h` said. */
int checked_fits(const struct checked *c, const struct hello *h, struct err *e);

#endif
