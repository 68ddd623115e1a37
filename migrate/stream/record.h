/*
 * The records of a stream; migrate/README.md draws them. A record is a head of 32 bytes, a body
 * (parsed, covered by the head's checksum) and, for page data only, padding and bulk data, which
 * go straight from and to guest memory.
 *
 * The reader treats its peer as hostile: types, flags, lengths, order and checksums are verified
 * before anything is allocated or believed.
 */
#ifndef GODWIT_MIGRATE_STREAM_RECORD_H
#define GODWIT_MIGRATE_STREAM_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct channel;
struct err;

#define STREAM_VERSION 1u

/* Numbers on the wire: never reused, never renumbered, 0 never valid. */
enum record_type {
	RECORD_HELLO = 1,
	RECORD_MACHINE = 2,
	RECORD_PAGES = 3,
	RECORD_STATES = 4,
	RECORD_END = 5,
	RECORD_CHECKED = 6,
	RECORD_ROUND = 7,
	RECORD_READY = 8,
	RECORD_GO = 9,
	RECORD_RUNNING = 10,
	RECORD_FAILED = 11,
	RECORD_AHEAD = 12,
	RECORD_PROBE = 13,
};

/* Bits of a head's flags. */
#define RECORD_UNCHECKED 1u /* PAGES: the data has no checksum; the channel is trusted with it */

#define RECORD_HEAD_BYTES 32u
#define RECORD_BODY_MAX	  (4u << 20)
#define RECORD_DATA_MAX	  (64ull << 20)
#define RECORD_PAD_MAX	  65535u

/* STATES may have so much more for each vCPU of the machine that the stream began with: an extended
 * state of 16 KiB, 512 MSRs, a LAPIC page, and the rest. */
#define RECORD_VCPU_MAX (32u << 10)
/* More vCPUs than that do not count. */
#define RECORD_VCPUS_MAX 1024u

/* "HELLO", "PAGES", ...; "unknown" for others. */
const char *record_name(uint16_t type);

struct writer {
	struct channel *channel;
	uint64_t sequence;
	bool broken;	  /* a record went out in part, if at all: nothing can follow it */
	uint32_t n_vcpus; /* of the machine whose states it sends, 0: not known */
};

/*
 * Writes one record. `data` (n_data pieces, may be 0) is the bulk part; it is padded to where the
 * channel wants page data. The vector may be changed.
 */
int writer_record(struct writer *w, enum record_type type, const void *body, size_t body_bytes,
		  struct iovec *data, int n_data, struct err *e);
int writer_flagged(struct writer *w, enum record_type type, uint16_t flags, const void *body,
		   size_t body_bytes, struct iovec *data, int n_data, struct err *e);

/* HELLO; what it says of this host and this program is filled in, but a program that is there. */
struct hello;
int writer_hello(struct writer *w, struct hello *h, struct err *e);

struct record {
	uint16_t type, flags;
	uint64_t offset; /* of its head in the stream */
	uint32_t body_bytes;
	const uint8_t *body; /* owned by the reader, until the next record */
	uint64_t data_bytes; /* still to be taken from the channel: reader_data or reader_skip */
};

struct reader {
	struct channel *channel;
	uint64_t sequence;
	uint64_t bytes;	  /* read so far */
	bool answers;	  /* the destination's direction, which begins with CHECKED */
	uint32_t n_vcpus; /* of the machine whose states are to come, 0: not known */
	uint64_t data_left;
	uint8_t *body;
	size_t body_size;
};

/* The next record, which must be of that type; a FAILED one becomes the error with its text. */
int reader_expect(struct reader *r, enum record_type type, struct record *out, struct err *e);

/* What a file ends with: an END record without a body, and nothing behind it. */
int reader_end(struct reader *r, struct err *e);
/* The second half of it: the record has been read. */
int reader_ended(struct reader *r, const struct record *end, struct err *e);

/* The next record: head and body are read and verified, the padding is skipped. */
int reader_record(struct reader *r, struct record *out, struct err *e);

/* How long the body of a record of that type may be. */
uint32_t record_body_max(uint16_t type, uint32_t n_vcpus);

/* The text in a record's body (CHECKED, FAILED), without what would upset a terminal. */
void record_text(const struct record *r, char *out, size_t size);

/* The next `len` bytes of the record's bulk data, into guest memory or wherever. */
int reader_data(struct reader *r, void *to, size_t len, struct err *e);

/* Reads on over the rest of the bulk data. */
int reader_skip(struct reader *r, struct err *e);

void reader_free(struct reader *r);

/* Little endian numbers at any alignment. */
void put_u32(uint8_t *at, uint32_t v);
void put_u64(uint8_t *at, uint64_t v);
uint32_t get_u32(const uint8_t *at);
uint64_t get_u64(const uint8_t *at);

/* HELLO: the first record of every stream. */
#define HELLO_BYTES 64u

enum hello_role {
	ROLE_MAIN = 1,	/* the connection that everything begins with */
	ROLE_PAGES = 2, /* a further one of the same migration: PAGES and ROUND only */
	ROLE_PROBE = 3, /* measures the link, and no migration: PROBE and ROUND only */
};

struct hello {
	uint32_t version;
	char arch[12]; /* "x86_64" */
	uint32_t role; /* enum hello_role */
	uint32_t page_bytes;
	uint8_t id[16];	  /* random: which migration */
	char program[12]; /* version of the program, for messages */
	uint8_t features; /* of the source: */
	uint32_t lanes;	  /* connections of this migration, the main one included */
};

#define HELLO_HEARS_COSTS 1u /* CHECKED may bring what the pause costs at the destination */

/* Whether a stream begins like this. */
bool record_begins_stream(const uint8_t first[RECORD_HEAD_BYTES + HELLO_BYTES]);

void hello_encode(const struct hello *h, uint8_t out[HELLO_BYTES]);
/* Refuses what is no godwit stream, a newer version, another architecture or page size. */
int hello_decode(const struct record *r, struct hello *out, struct err *e);

/*
 * CHECKED, to a source that hears costs: u32 0 (no text begins so), and three u32, each us: what
 * the machine took to be made, what its states take to be loaded, and its vCPUs to be started.
 */
#define CHECKED_COSTS_BYTES 16u

struct checked_costs {
	uint32_t build_us, load_us, start_us;
};

void checked_encode(const struct checked_costs *c, uint8_t out[CHECKED_COSTS_BYTES]);
/* False: there are none in it. */
bool checked_decode(const struct record *r, struct checked_costs *out);
/* Whether it is a refusal, with a text. */
bool checked_refuses(const struct record *r);

/* STATES: u64 ns since the guest was parked (0 in a file: time stood still), u64 bits, then the
 * tree. */
#define STATES_HEAD_BYTES 16u

#define STATES_RAN  1u /* the guest ran */
#define STATES_TELL 2u /* only with it: it has heard before_migration, and is to hear the end */

/* PAGES: the head of its body; then n_runs pairs of u64 (first page, number of pages). */
#define PAGES_HEAD_BYTES 16u
#define PAGES_RUN_BYTES	 16u
#define PAGES_RUNS_MAX	 1000u

/* Compressed or encoded records hold so many pages at most, so that a lane's memory is bounded. */
#define PAGES_ENCODED_MAX 512u

enum pages_codec {
	CODEC_PLAIN = 1,  /* the data are the pages */
	CODEC_ZERO = 2,	  /* no data: the pages are zero */
	CODEC_XBZRLE = 3, /* for each page: u16 bytes of its encoding, and the encoding */
	CODEC_ZLIB = 4,	  /* a zlib stream of the pages */
	CODEC_ZSTD = 5,	  /* a zstd frame of the pages */
};

/* "plain", "zero", ...; "unknown" for others. */
const char *pages_codec_name(uint32_t codec);

/* An XBZRLE record says for each page how many bytes follow; 0: it is unchanged. */
#define PAGES_XBZRLE_HEAD_BYTES 2u

struct pages {
	uint32_t block;
	uint32_t codec;
	uint32_t n_runs;
	uint32_t data_crc;
	const uint8_t *runs;
};

/*
 * Checks what can be checked without knowing the machine: the runs, and whether there may be so
 * many data for so many pages.
 */
int pages_decode(const struct record *r, struct pages *out, struct err *e);
void pages_run(const struct pages *p, uint32_t i, uint64_t *first, uint64_t *n);

#endif
