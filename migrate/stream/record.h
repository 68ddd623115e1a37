/*
 * The records of a stream; man/godwit-stream.5 describes them. A record is a head of 32 bytes, a
 * body (parsed, covered by the head's checksum) and, for page data only, padding and bulk data,
 * which go straight from and to guest memory.
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

#define STREAM_VERSION	   2u /* written */
#define STREAM_VERSION_MIN 1u /* still read */

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
	/* Reserved: these are refused as not implemented. */
	RECORD_WANT = 14,	  /* post-copy: pages that the destination waits for */
	RECORD_DISCARD = 15,	  /* post-copy: pages that came and were written to afterwards */
	RECORD_ARRIVED = 16,	  /* post-copy and recovery: pages that the destination has */
	RECORD_RECOVER = 17,	  /* recovery: how far this side was */
	RECORD_DISK = 18,	  /* disks: data of an image */
	RECORD_DISCARD_DISK = 19, /* disks: parts of an image that hold nothing */
};

/* Bits of a head's flags. */
#define RECORD_UNCHECKED                                                         \
	1u /* PAGES: the data have no checksum; the channel is trusted with them \
	    */
/* A reader that does not know the type skips the record. Without the flag it refuses the stream. */
#define RECORD_SKIPPABLE 2u

/* Between two records of known types at most this much is skipped, so that no reader is kept busy
 * for ever without its caller hearing of it. */
#define RECORD_SKIPS_MAX      256u
#define RECORD_SKIP_BYTES_MAX (256ull << 20)

#define RECORD_HEAD_BYTES 32u
#define RECORD_BODY_MAX	  (4u << 20)
#define RECORD_DATA_MAX	  (64ull << 20)
#define RECORD_PAD_MAX	  65535u
#define RECORD_TEXT_MAX	  500u

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

/* A record that is a text (CHECKED that refuses, FAILED), cut at RECORD_TEXT_MAX bytes. An empty
 * text would say that all is well: it becomes one that says that there is none. */
int writer_text(struct writer *w, enum record_type type, const char *text, struct err *e);

struct record {
	uint16_t type, flags;
	uint64_t offset; /* of its head in the stream */
	uint32_t body_bytes;
	const uint8_t *body; /* owned by the reader, until the next record */
	bool crc32c;	     /* PAGES: which checksum the data have, if any: since version 2 */
	uint64_t data_bytes; /* still to be taken from the channel: reader_data or reader_skip */
};

struct reader {
	struct channel *channel;
	uint32_t version; /* of the stream: set by hello_take, 0 before; the newest for answers */
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

/* The next record of a type that is known and implemented: head and body are read and verified, the
 * padding is skipped. Others are skipped or refused, see RECORD_SKIPPABLE. */
int reader_record(struct reader *r, struct record *out, struct err *e);

/* How long the body of a record of that type may be. */
uint32_t record_body_max(uint16_t type, uint32_t n_vcpus);

/* The other end of writer_text, without what would upset a terminal. */
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

#endif
